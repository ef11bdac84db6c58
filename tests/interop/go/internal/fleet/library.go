package fleet

import (
	"context"
	"encoding/json"
	"time"
)

// Library is one version of Machinery with its server. The two versions have the same API on
// types of their own, hence one small package for each.
type Library interface {
	// SignatureOf gives the signature that the worker put into a task's context.
	SignatureOf(ctx context.Context) Received
	// RetryLater is the error that asks for the same task again.
	RetryLater(message string, delay time.Duration) error
	Register(functions map[string]any) error
	// Work consumes until a signal ends it; ready is called when consumption begins.
	Work(ready func()) error

	Send(signature json.RawMessage, literal bool) (string, error)
	SendChain(signatures []json.RawMessage, literal bool) ([]string, error)
	SendGroup(signatures []json.RawMessage, concurrency int, literal bool) (Group, error)
	SendChord(signatures []json.RawMessage, callback json.RawMessage, concurrency int, literal bool) (Group, error)
	// RegisterPeriodic sends a workflow from this process at the times of a cron spec.
	RegisterPeriodic(p Periodic, literal bool) error
	// Lock takes a lock of periodic tasks until a time in Unix nanoseconds.
	Lock(key string, until int64, retry bool) error
	// Get waits with Machinery's own AsyncResult.
	Get(uuid string, timeout time.Duration) ([]Value, error)
	State(uuid string) (any, error)
	Pending(queue string) (any, error)
	Delayed() (any, error)
}

// Received is what tasks may know about their signature.
type Received struct {
	UUID, Name string
	Headers    map[string]any
	Whole      any
}

// Group names what was sent by a group or a chord.
type Group struct {
	GroupUUID string
	UUIDs     []string
	Callback  string
}

// Periodic is a workflow to be sent again and again: its first member is a task, or its members
// are a chain, a group, or a chord with a callback.
type Periodic struct {
	Spec, Name, Kind string
	Signatures       []json.RawMessage
	Callback         json.RawMessage
	Concurrency      int
}

// Value is one result as Go reads it back.
type Value struct {
	Type string `json:"type"`
	JSON any    `json:"json"`
}

// Plain turns the numbers of decoded JSON into what a Go program would write: int64 or float64.
func Plain(value any) any {
	switch v := value.(type) {
	case json.Number:
		if whole, err := v.Int64(); err == nil {
			return whole
		}
		fraction, err := v.Float64()
		if err != nil {
			return v
		}
		return fraction
	case map[string]any:
		for key, element := range v {
			v[key] = Plain(element)
		}
	case []any:
		for index, element := range v {
			v[index] = Plain(element)
		}
	}
	return value
}
