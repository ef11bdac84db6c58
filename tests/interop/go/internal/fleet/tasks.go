package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/gomodule/redigo/redis"
)

// attemptsPrefix begins the names of the Redis counters that workers of all languages share.
const attemptsPrefix = "attempts:"

// Tasks are the functions of the worker, each of which writes the journal before it runs.
func Tasks(library Library, options Options, journal *Journal) map[string]any {
	attempts := counter(options.Counter)
	functions := map[string]any{
		"add":       add,
		"go_add":    add,
		"multiply":  multiply,
		"go_concat": func(parts []string) (string, error) { return strings.Join(parts, ""), nil },
		"go_join":   func(parts ...string) (string, error) { return strings.Join(parts, ""), nil },
		"go_swap":   func(text string, number int64) (int64, string, error) { return number, text, nil },
		"mixed":     echo[int64],
		"who":       func() (string, error) { return "go", nil },
		"go_who":    func() (string, error) { return "go", nil },
		"go_fail":   func(text string) error { return errors.New(text) },
		"go_panic":  func() error { panic("go_panic") },
		"go_nothing": func() error {
			return nil
		},
		"go_sleep": func(milliseconds int64) (int64, error) {
			time.Sleep(time.Duration(milliseconds) * time.Millisecond)
			return milliseconds, nil
		},
		// The n-th execution for a key is the first one that succeeds.
		"go_fail_times": func(key string, n int64, _ ...int64) (int64, error) {
			attempt, err := attempts(key)
			if err == nil && attempt < n {
				err = fmt.Errorf("attempt %d of %d", attempt, n)
			}
			return attempt, err
		},
		"go_retry_later": func(key string, n int64, delay int64) (int64, error) {
			attempt, err := attempts(key)
			if err == nil && attempt < n {
				message := fmt.Sprintf("attempt %d of %d", attempt, n)
				err = library.RetryLater(message, time.Duration(delay)*time.Millisecond)
			}
			return attempt, err
		},
		"go_headers": func(ctx context.Context) (string, error) {
			return asJSON(library.SignatureOf(ctx).Headers)
		},
		"go_signature": func(ctx context.Context) (string, error) {
			return asJSON(library.SignatureOf(ctx).Whole)
		},

		"go_echo_bytes": echo[[]byte],
	}
	for name, function := range echoes() {
		functions["go_echo_"+name] = function
	}
	for name, function := range functions {
		functions[name] = journaled(library, journal, function)
	}
	return functions
}

func add(numbers ...int64) (int64, error) {
	var sum int64
	for _, number := range numbers {
		sum += number
	}
	return sum, nil
}

func multiply(numbers ...int64) (int64, error) {
	product := int64(1)
	for _, number := range numbers {
		product *= number
	}
	return product, nil
}

func echo[T any](value T) (T, error) { return value, nil }

func echoes() map[string]any {
	return map[string]any{
		"bool": echo[bool], "string": echo[string],
		"int": echo[int], "int8": echo[int8], "int16": echo[int16], "int32": echo[int32], "int64": echo[int64],
		"uint": echo[uint], "uint8": echo[uint8], "uint16": echo[uint16], "uint32": echo[uint32], "uint64": echo[uint64],
		"float32": echo[float32], "float64": echo[float64],

		"slice_bool": echo[[]bool], "slice_string": echo[[]string],
		"slice_int": echo[[]int], "slice_int8": echo[[]int8], "slice_int16": echo[[]int16],
		"slice_int32": echo[[]int32], "slice_int64": echo[[]int64],
		"slice_uint": echo[[]uint], "slice_uint8": echo[[]uint8], "slice_uint16": echo[[]uint16],
		"slice_uint32": echo[[]uint32], "slice_uint64": echo[[]uint64],
		"slice_float32": echo[[]float32], "slice_float64": echo[[]float64],
	}
}

// counter counts executions under a key in Redis, across workers of all languages.
func counter(url string) func(key string) (int64, error) {
	return func(key string) (int64, error) {
		connection, err := redis.DialURL(url)
		if err != nil {
			return 0, err
		}
		defer connection.Close()
		return redis.Int64(connection.Do("INCR", attemptsPrefix+key))
	}
}

func asJSON(value any) (string, error) {
	text, err := json.Marshal(value)
	return string(text), err
}

var contextType = reflect.TypeOf((*context.Context)(nil)).Elem()

// journaled gives function a context as its first parameter, unless it has one, and writes the
// journal each time it is called.
func journaled(library Library, journal *Journal, function any) any {
	inner := reflect.ValueOf(function)
	signature := inner.Type()
	takesContext := signature.NumIn() > 0 && signature.In(0) == contextType

	in := []reflect.Type{contextType}
	for i := 0; i < signature.NumIn(); i++ {
		if i > 0 || !takesContext {
			in = append(in, signature.In(i))
		}
	}
	out := make([]reflect.Type, signature.NumOut())
	for i := range out {
		out[i] = signature.Out(i)
	}

	outer := reflect.FuncOf(in, out, signature.IsVariadic())
	return reflect.MakeFunc(outer, func(arguments []reflect.Value) []reflect.Value {
		received := library.SignatureOf(arguments[0].Interface().(context.Context))
		if err := journal.Executed(received.UUID, received.Name); err != nil {
			panic(err)
		}
		if !takesContext {
			arguments = arguments[1:]
		}
		if signature.IsVariadic() {
			return inner.CallSlice(arguments)
		}
		return inner.Call(arguments)
	}).Interface()
}
