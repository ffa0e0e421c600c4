package bench

import (
	"fmt"
	"image/color"
	"io"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// policyPicture draws how many connections a second there are between two pods of one node, in each setting.
func (r *Report) policyPicture(w io.Writer) error {
	p := plot.New()
	p.Title.Text = "New TCP connections a second, two pods of one node, one CPU"
	p.Y.Min, p.Y.Label.Text = 0, "connections a second"
	p.Legend.Top, p.Legend.Left, p.Legend.Padding = false, true, vg.Points(3)
	var names []string
	var points []PolicyPoint
	for _, at := range r.Policies {
		if at.Where == r.Policies[0].Where {
			points = append(points, at)
			names = append(names, fmt.Sprintf("%d policies,\n%d of the pod", at.Policies, at.Selecting))
		}
	}
	width := vg.Points(14)
	for i, s := range []struct {
		name  string
		of    func(PolicyPoint) float64
		color color.Color
	}{
		{"no policies", func(p PolicyPoint) float64 { return p.None }, color.RGBA{R: 0xaa, G: 0xaa, B: 0xaa, A: 0xff}},
		{"selvage", func(p PolicyPoint) float64 { return p.Selvage }, color.RGBA{R: 0x1b, G: 0x6c, B: 0xa8, A: 0xff}},
		{"kube-router's rules", func(p PolicyPoint) float64 { return p.KubeRouter },
			color.RGBA{R: 0xe0, G: 0x8e, B: 0x0b, A: 0xff}},
	} {
		var values plotter.Values
		for _, at := range points {
			values = append(values, s.of(at))
		}
		bars, err := plotter.NewBarChart(values, width)
		if err != nil {
			return fmt.Errorf("draw %s: %w", s.name, err)
		}
		bars.Color, bars.LineStyle.Width, bars.Offset = s.color, 0, vg.Length(i-1)*width
		p.Add(bars)
		p.Legend.Add(s.name, bars)
	}
	p.NominalX(names...)
	canvas := vgsvg.New(20*vg.Centimeter, 12*vg.Centimeter)
	p.Draw(draw.New(canvas))
	_, err := canvas.WriteTo(w)
	return err
}
