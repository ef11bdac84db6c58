package main

import (
	"encoding/json"
	"io"
	"time"

	"github.com/RichardKnop/machinery/v2"
	"github.com/RichardKnop/machinery/v2/tasks"
)

const (
	timeout = 15 * time.Second
	pause   = 5 * time.Millisecond
)

// answer is one line of the output.
type answer struct {
	UUID         string  `json:"uuid"`
	Name         string  `json:"name"`
	Results      []any   `json:"results"`
	Error        string  `json:"error"`
	Milliseconds float64 `json:"ms"`
}

// send sends the Go program's tasks one after another and writes their answers.
func send(server *machinery.Server, output io.Writer) error {
	divide := call("py_divide", tasks.Arg{Type: "int64", Value: int64(1)}, tasks.Arg{Type: "int64", Value: int64(0)})
	flaky := call("flaky")
	flaky.RetryCount = 2
	lines := json.NewEncoder(output)
	for _, signature := range []*tasks.Signature{
		call("py_add", tasks.Arg{Type: "int64", Value: int64(20)}, tasks.Arg{Type: "int64", Value: int64(22)}),
		call("py_greet", tasks.Arg{Type: "string", Value: "Gopher"}),
		divide,
		flaky,
	} {
		if err := lines.Encode(perform(server, signature)); err != nil {
			return err
		}
	}
	return nil
}

func call(name string, args ...tasks.Arg) *tasks.Signature {
	return &tasks.Signature{Name: name, Args: args}
}

func perform(server *machinery.Server, signature *tasks.Signature) answer {
	begin := time.Now()
	reply := answer{Name: signature.Name, Results: []any{}}
	pending, err := server.SendTask(signature)
	reply.UUID = signature.UUID
	if err == nil {
		values, failure := pending.GetWithTimeout(timeout, pause)
		err = failure
		for _, value := range values {
			reply.Results = append(reply.Results, value.Interface())
		}
	}
	if err != nil {
		reply.Error = err.Error()
	}
	reply.Milliseconds = float64(time.Since(begin).Microseconds()) / 1000
	return reply
}
