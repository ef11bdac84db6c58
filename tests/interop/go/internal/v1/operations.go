package v1

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	machinery "github.com/RichardKnop/machinery/v1"
	"github.com/RichardKnop/machinery/v1/backends/result"
	"github.com/RichardKnop/machinery/v1/tasks"

	"machinery_compat/interop/internal/fleet"
)

const getPause = 10 * time.Millisecond

// SignatureOf implements fleet.Library.
func (l *Library) SignatureOf(ctx context.Context) fleet.Received {
	signature := tasks.SignatureFromContext(ctx)
	return fleet.Received{
		UUID: signature.UUID, Name: signature.Name, Headers: signature.Headers, Whole: signature,
	}
}

// RetryLater implements fleet.Library.
func (l *Library) RetryLater(message string, delay time.Duration) error {
	return tasks.NewErrRetryTaskLater(message, delay)
}

// Register implements fleet.Library.
func (l *Library) Register(functions map[string]any) error { return l.server.RegisterTasks(functions) }

// Work implements fleet.Library.
func (l *Library) Work(ready func()) error {
	l.server.SetBroker(announcing{l.server.GetBroker(), l.options, ready})
	worker := l.server.NewCustomQueueWorker(l.options.Tag, l.options.Concurrency, l.options.CustomQueue)
	if err := worker.Launch(); !errors.Is(err, machinery.ErrWorkerQuitGracefully) {
		return err
	}
	return nil
}

// Send implements fleet.Library.
func (l *Library) Send(raw json.RawMessage, literal bool) (string, error) {
	signature, err := decode(raw, literal)
	if err != nil {
		return "", err
	}
	_, err = l.server.SendTask(signature)
	return signature.UUID, err
}

// SendChain implements fleet.Library.
func (l *Library) SendChain(raw []json.RawMessage, literal bool) ([]string, error) {
	signatures, err := decodeAll(raw, literal)
	if err != nil {
		return nil, err
	}
	chain, err := tasks.NewChain(signatures...)
	if err != nil {
		return nil, err
	}
	_, err = l.server.SendChain(chain)
	return uuids(chain.Tasks), err
}

// SendGroup implements fleet.Library.
func (l *Library) SendGroup(raw []json.RawMessage, concurrency int, literal bool) (fleet.Group, error) {
	group, err := newGroup(raw, literal)
	if err != nil {
		return fleet.Group{}, err
	}
	_, err = l.server.SendGroup(group, concurrency)
	return fleet.Group{GroupUUID: group.GroupUUID, UUIDs: group.GetUUIDs()}, err
}

// SendChord implements fleet.Library.
func (l *Library) SendChord(
	raw []json.RawMessage, callback json.RawMessage, concurrency int, literal bool,
) (fleet.Group, error) {
	group, err := newGroup(raw, literal)
	if err != nil {
		return fleet.Group{}, err
	}
	body, err := decode(callback, literal)
	if err != nil {
		return fleet.Group{}, err
	}
	chord, err := tasks.NewChord(group, body)
	if err != nil {
		return fleet.Group{}, err
	}
	_, err = l.server.SendChord(chord, concurrency)
	return fleet.Group{GroupUUID: group.GroupUUID, UUIDs: group.GetUUIDs(), Callback: body.UUID}, err
}

// Get implements fleet.Library.
func (l *Library) Get(uuid string, timeout time.Duration) ([]fleet.Value, error) {
	pending := result.NewAsyncResult(&tasks.Signature{UUID: uuid}, l.server.GetBackend())
	results, err := pending.GetWithTimeout(timeout, getPause)
	if err != nil {
		return nil, err
	}
	values := []fleet.Value{}
	for _, value := range results {
		values = append(values, fleet.Value{Type: value.Type().String(), JSON: value.Interface()})
	}
	return values, nil
}

// State implements fleet.Library.
func (l *Library) State(uuid string) (any, error) { return l.server.GetBackend().GetState(uuid) }

// Pending implements fleet.Library.
func (l *Library) Pending(queue string) (any, error) {
	return l.server.GetBroker().GetPendingTasks(queue)
}

// Delayed implements fleet.Library.
func (l *Library) Delayed() (any, error) { return l.server.GetBroker().GetDelayedTasks() }

func newGroup(raw []json.RawMessage, literal bool) (*tasks.Group, error) {
	signatures, err := decodeAll(raw, literal)
	if err != nil {
		return nil, err
	}
	return tasks.NewGroup(signatures...)
}

func uuids(signatures []*tasks.Signature) []string {
	found := []string{}
	for _, signature := range signatures {
		found = append(found, signature.UUID)
	}
	return found
}

func decodeAll(raw []json.RawMessage, literal bool) ([]*tasks.Signature, error) {
	signatures := make([]*tasks.Signature, len(raw))
	for index, one := range raw {
		signature, err := decode(one, literal)
		if err != nil {
			return nil, err
		}
		signatures[index] = signature
	}
	return signatures, nil
}

func decode(raw json.RawMessage, literal bool) (*tasks.Signature, error) {
	signature := new(tasks.Signature)
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(signature); err != nil {
		return nil, err
	}
	if literal {
		return signature, nil
	}
	return signature, typed(signature)
}

// typed gives arguments and headers the Go values that a Go program would have written.
func typed(signature *tasks.Signature) error {
	if signature == nil {
		return nil
	}
	for index, arg := range signature.Args {
		value, err := tasks.ReflectValue(arg.Type, arg.Value)
		if err != nil {
			return fmt.Errorf("argument %d of %s: %w", index, signature.Name, err)
		}
		signature.Args[index].Value = value.Interface()
	}
	for key, value := range signature.Headers {
		signature.Headers[key] = fleet.Plain(value)
	}
	nested := append(append([]*tasks.Signature{signature.ChordCallback}, signature.OnSuccess...), signature.OnError...)
	for _, one := range nested {
		if err := typed(one); err != nil {
			return err
		}
	}
	return nil
}
