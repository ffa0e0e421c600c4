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

// HasPicture reports whether there is anything to draw.
func (r *Report) HasPicture() bool { return len(r.Points)+len(r.Policies) > 0 }

// Picture draws what a start costs against the number of leases, as SVG, or if that was not measured, connections
// against the number of policies.
func (r *Report) Picture(w io.Writer) error {
	if len(r.Points) == 0 {
		return r.policyPicture(w)
	}
	p := plot.New()
	p.Title.Text = "Start until all entries are in the kernel"
	p.X.Label.Text, p.Y.Label.Text = "leases", "milliseconds"
	p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
	p.X.Tick.Marker, p.Y.Tick.Marker = plot.LogTicks{Prec: -1}, plot.LogTicks{Prec: -1}
	p.Legend.Top, p.Legend.Left, p.Legend.Padding = true, true, vg.Points(3)
	for _, s := range []struct {
		name   string
		of     func(Point) float64
		color  color.Color
		dashed bool
	}{
		{"selvaged", func(p Point) float64 { return p.Start }, color.RGBA{R: 0x1b, G: 0x6c, B: 0xa8, A: 0xff}, false},
		{"selvaged's CPU", func(p Point) float64 { return p.CPU }, color.RGBA{R: 0x7f, G: 0xb2, B: 0xd9, A: 0xff}, false},
		{"iproute2, the faster way", func(p Point) float64 { return p.Floor }, color.RGBA{R: 0x55, G: 0x55, B: 0x55, A: 0xff}, false},
		{"iproute2, plain routes", func(p Point) float64 { return p.Plain }, color.RGBA{R: 0xaa, G: 0xaa, B: 0xaa, A: 0xff}, false},
		{"limit: 1.6 × iproute2", func(p Point) float64 { return 1.6 * p.Floor }, color.RGBA{R: 0xc0, G: 0x39, B: 0x2b, A: 0xff}, true},
		{r.Machine.Peer, func(p Point) float64 { return p.Peer }, color.RGBA{R: 0xe0, G: 0x8e, B: 0x0b, A: 0xff}, false},
	} {
		var points plotter.XYs
		for _, at := range r.Points {
			if v := s.of(at); v > 0 { // a logarithmic scale has no 0
				points = append(points, plotter.XY{X: float64(at.Leases), Y: v})
			}
		}
		if len(points) == 0 {
			continue
		}
		line, dots, err := plotter.NewLinePoints(points)
		if err != nil {
			return fmt.Errorf("draw %s: %w", s.name, err)
		}
		line.Color, dots.Color, dots.Shape, dots.Radius = s.color, s.color, draw.CircleGlyph{}, vg.Points(2)
		if s.dashed {
			line.Dashes = []vg.Length{vg.Points(4), vg.Points(3)}
		}
		p.Add(line, dots)
		p.Legend.Add(s.name, line)
	}
	canvas := vgsvg.New(18*vg.Centimeter, 12*vg.Centimeter)
	p.Draw(draw.New(canvas))
	_, err := canvas.WriteTo(w)
	return err
}
