package apiserver

import (
	"context"
	"io"
)

// Reader lists and watches the objects of a resource in one form. Make one with [Client.Metadata], [Client.Labelled],
// [Client.Pods] or [Client.Raw].
type Reader[T any] struct {
	client   *Client
	resource Resource
	codec    codec
	listKind string    // empty: any
	accept   [2]string // of a list, and of a watch
	decode   func(message) T
	object   func(*T) *Object
}

// codec is how answers are encoded.
type codec interface {
	// list decodes a list while it arrives: its metadata, and each object.
	list(r io.Reader, kind string, meta func(listMeta) error, item func(message) error) error
	// frames returns a function that decodes one event of a watch with each call: its type and its object. The error is
	// io.EOF where the watch ends.
	frames(r io.Reader) func() (string, message, error)
	// metadata decodes an object's metadata.
	metadata(d decoder, m message) Object
	status(m message) status
}

// listMeta is a meta/v1 ListMeta.
type listMeta struct {
	version int64
	next    string // the token for the next page
}

// Metadata reads the metadata of objects, without labels.
func (c *Client) Metadata(r Resource) Reader[Object] { return metadataReader(c, r, c.decoder) }

// Labelled reads the metadata of objects with their labels.
func (c *Client) Labelled(r Resource) Reader[Object] {
	return metadataReader(c, r, c.decoder.labelled())
}

func metadataReader(c *Client, r Resource, d decoder) Reader[Object] {
	const kind = "PartialObjectMetadata"
	return Reader[Object]{
		client: c, resource: r, codec: protobufCodec{}, listKind: kind + "List",
		accept: [2]string{metadataOnly(kind + "List"), metadataOnly(kind)},
		decode: func(m message) Object { return d.object(m, nil) },
		object: func(o *Object) *Object { return o },
	}
}

// metadataOnly are the parameters of a content type that ask for an object's, or a list's, metadata alone.
func metadataOnly(kind string) string { return protobuf + ";as=" + kind + ";g=meta.k8s.io;v=v1" }

// nodes reads whole Nodes.
func (c *Client) nodes() Reader[Node] {
	return Reader[Node]{
		client: c, resource: Nodes, codec: protobufCodec{}, listKind: "NodeList",
		accept: [2]string{protobuf, protobuf}, decode: c.decoder.node,
		object: func(n *Node) *Object { return &n.Object },
	}
}

// Pods reads Pods with their labels. A Pod has some 5 kB, of which a few hundred bytes are kept.
func (c *Client) Pods() Reader[Pod] {
	d := c.decoder.labelled()
	return Reader[Pod]{
		client: c, resource: Pods, codec: protobufCodec{}, listKind: "PodList",
		accept: [2]string{protobuf, protobuf}, decode: d.pod,
		object: func(p *Pod) *Object { return &p.Object },
	}
}

// Raw reads objects in JSON, as custom resources are served in no other form.
func (c *Client) Raw(r Resource) Reader[Raw] {
	return Reader[Raw]{
		client: c, resource: r, codec: jsonCodec{}, accept: [2]string{jsonType, jsonType}, decode: c.decoder.raw,
		object: func(o *Raw) *Object { return &o.Object },
	}
}

// List reads the metadata of all objects of a resource, see [Reader.List].
func (c *Client) List(
	ctx context.Context, r Resource, o ListOptions, page func(Page) error,
) (version int64, err error) {
	return c.Metadata(r).List(ctx, o, page)
}

// Nodes is [Client.List] for whole Nodes. It costs the server and the network five times as much.
func (c *Client) Nodes(ctx context.Context, o ListOptions, page func(PageOf[Node]) error) (version int64, err error) {
	return c.nodes().List(ctx, o, page)
}

// Watch reports what happens to the metadata of the objects of a resource, see [Reader.Watch].
func (c *Client) Watch(ctx context.Context, r Resource, o WatchOptions, each func(Event) error) error {
	return c.Metadata(r).Watch(ctx, o, each)
}
