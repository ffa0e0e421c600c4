// Package v20170312 stands for the SDK of one cloud that flannel's daemon is linked with, and that module proxies do not have. The
// lab is no such cloud: whoever calls it is told so.
package v20170312

import "errors"

var errNoCloud = errors.New("this flanneld is built without that cloud's SDK")

// Client would be the cloud's.
type Client struct{}

// NewClientWithSecretId returns a client that can do nothing.
func NewClientWithSecretId(_, _, _ string) (*Client, error) { return &Client{}, nil }

// Filter, Route and RouteTable are what flannel reads and writes.
type (
	Filter struct {
		Name   *string
		Values []*string
	}
	Route struct {
		RouteId              *uint64
		RouteType            *string
		DestinationCidrBlock *string
		GatewayType          *string
		GatewayId            *string
		Enabled              *bool
	}
	RouteTable struct {
		RouteTableId *string
		RouteSet     []*Route
	}
)

// The requests, and the one answer that is looked into.
type (
	DescribeRouteTablesRequest  struct{ Filters []*Filter }
	DescribeRouteTablesResponse struct {
		Response struct{ RouteTableSet []*RouteTable }
	}
	RoutesRequest struct {
		RouteTableId *string
		Routes       []*Route
	}
)

func NewDescribeRouteTablesRequest() *DescribeRouteTablesRequest {
	return &DescribeRouteTablesRequest{}
}
func NewDeleteRoutesRequest() *RoutesRequest { return &RoutesRequest{} }
func NewCreateRoutesRequest() *RoutesRequest { return &RoutesRequest{} }

func (*Client) DescribeRouteTables(*DescribeRouteTablesRequest) (*DescribeRouteTablesResponse, error) {
	return nil, errNoCloud
}
func (*Client) DeleteRoutes(*RoutesRequest) (any, error) { return nil, errNoCloud }
func (*Client) CreateRoutes(*RoutesRequest) (any, error) { return nil, errNoCloud }
