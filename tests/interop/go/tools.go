//go:build tools

// Package interop keeps Machinery's published example programs, and with them what they need, in
// go.mod, so that they can be built from here by their import path.
package interop

import (
	_ "github.com/RichardKnop/machinery/example/amqp"
	_ "github.com/RichardKnop/machinery/example/redis"
	_ "github.com/RichardKnop/machinery/v2/example/amqp"
	_ "github.com/RichardKnop/machinery/v2/example/go-redis"
	_ "github.com/RichardKnop/machinery/v2/example/redigo"
)
