package fleet

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"time"
)

const (
	defaultGetTimeout  = 10 * time.Second
	defaultConcurrency = 10
	longestLine        = 64 << 20 // bytes
)

type command struct {
	Op          string            `json:"op"`
	Signature   json.RawMessage   `json:"signature"`
	Signatures  []json.RawMessage `json:"signatures"`
	Callback    json.RawMessage   `json:"callback"`
	Concurrency int               `json:"concurrency"`
	UUID        string            `json:"uuid"`
	TimeoutMS   int64             `json:"timeout_ms"`
	Queue       string            `json:"queue"`
	// Of periodic workflows and of locks.
	Spec  string `json:"spec"`
	Name  string `json:"name"`
	Kind  string `json:"kind"`
	Key   string `json:"key"`
	Until int64  `json:"until"`
	// Literal leaves argument values as decoded instead of turning them into their Type.
	Literal bool `json:"literal"`
}

// Serve answers one JSON line for each JSON line that it reads.
func Serve(library Library, input io.Reader, output io.Writer) error {
	lines := bufio.NewScanner(input)
	lines.Buffer(make([]byte, 0, 64<<10), longestLine)
	answers := json.NewEncoder(output)
	for lines.Scan() {
		if err := answers.Encode(answer(library, lines.Bytes())); err != nil {
			return err
		}
	}
	return lines.Err()
}

func answer(library Library, line []byte) (reply map[string]any) {
	// Machinery panics on some values; the test shall see that as an answer.
	defer func() {
		if reason := recover(); reason != nil {
			reply = map[string]any{"error": fmt.Sprintf("panic: %v", reason)}
		}
	}()
	var c command
	if err := json.Unmarshal(line, &c); err != nil {
		return map[string]any{"error": err.Error()}
	}
	if c.Concurrency == 0 {
		c.Concurrency = defaultConcurrency
	}
	reply, err := perform(library, c)
	if err != nil {
		if reply == nil {
			reply = map[string]any{}
		}
		reply["error"] = err.Error()
	}
	return reply
}

func perform(library Library, c command) (map[string]any, error) {
	switch c.Op {
	case "send":
		uuid, err := library.Send(c.Signature, c.Literal)
		return map[string]any{"uuid": uuid}, err
	case "send_many":
		uuids := []string{}
		for _, signature := range c.Signatures {
			uuid, err := library.Send(signature, c.Literal)
			if err != nil {
				return map[string]any{"uuids": uuids}, err
			}
			uuids = append(uuids, uuid)
		}
		return map[string]any{"uuids": uuids}, nil
	case "send_chain":
		uuids, err := library.SendChain(c.Signatures, c.Literal)
		return map[string]any{"uuids": uuids}, err
	case "send_group":
		group, err := library.SendGroup(c.Signatures, c.Concurrency, c.Literal)
		return map[string]any{"uuids": group.UUIDs, "group_uuid": group.GroupUUID}, err
	case "send_chord":
		group, err := library.SendChord(c.Signatures, c.Callback, c.Concurrency, c.Literal)
		return map[string]any{
			"uuids": group.UUIDs, "group_uuid": group.GroupUUID, "callback_uuid": group.Callback,
		}, err
	case "periodic":
		periodic := Periodic{c.Spec, c.Name, c.Kind, c.Signatures, c.Callback, c.Concurrency}
		return map[string]any{}, library.RegisterPeriodic(periodic, c.Literal)
	case "lock", "lock_with_retries":
		return map[string]any{}, library.Lock(c.Key, c.Until, c.Op == "lock_with_retries")
	case "get":
		timeout := time.Duration(c.TimeoutMS) * time.Millisecond
		if timeout <= 0 {
			timeout = defaultGetTimeout
		}
		results, err := library.Get(c.UUID, timeout)
		return map[string]any{"results": results}, err
	case "state":
		state, err := library.State(c.UUID)
		return map[string]any{"state": state}, err
	case "pending":
		signatures, err := library.Pending(c.Queue)
		return map[string]any{"signatures": signatures}, err
	case "delayed":
		signatures, err := library.Delayed()
		return map[string]any{"signatures": signatures}, err
	}
	return nil, fmt.Errorf("unknown op %q", c.Op)
}
