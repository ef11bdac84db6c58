// Command oracle says what Go Machinery makes of message bodies.
//
// It reads one JSON object a line, {"op":"roundtrip","hex":"..."}, decodes the bytes as Machinery's
// brokers do, converts every argument as its worker does, and answers with one line:
//
//	{"reencoded_hex":"...","error":"...","args":[{"type":"...","json":"...","error":"..."}]}
package main

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"

	"github.com/RichardKnop/machinery/v2/tasks"
)

type request struct {
	Op  string `json:"op"`
	Hex string `json:"hex"`
}

type argument struct {
	Type  string `json:"type"`
	JSON  string `json:"json"`
	Error string `json:"error"`
	Panic bool   `json:"panic"`
}

type answer struct {
	ReencodedHex string     `json:"reencoded_hex"`
	Error        string     `json:"error"`
	Args         []argument `json:"args"`
}

// convert does what a worker does with one argument. The real worker has no recover around it.
func convert(arg tasks.Arg) (result argument) {
	defer func() {
		if e := recover(); e != nil {
			result.Error = fmt.Sprint(e)
			result.Panic = true
		}
	}()
	value, err := tasks.ReflectValue(arg.Type, arg.Value)
	if err != nil {
		result.Error = err.Error()
		return result
	}
	result.Type = value.Type().String()
	encoded, err := json.Marshal(value.Interface())
	if err != nil {
		// A float that wrapped to infinity has no JSON; its text says enough.
		encoded = []byte(fmt.Sprint(value.Interface()))
	}
	result.JSON = string(encoded)
	return result
}

func roundtrip(body []byte) answer {
	result := answer{Args: []argument{}}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	signature := new(tasks.Signature)
	if err := decoder.Decode(signature); err != nil {
		result.Error = err.Error()
		return result
	}
	encoded, err := json.Marshal(signature)
	if err != nil {
		result.Error = err.Error()
		return result
	}
	result.ReencodedHex = hex.EncodeToString(encoded)
	for _, arg := range signature.Args {
		result.Args = append(result.Args, convert(arg))
	}
	return result
}

func main() {
	lines := bufio.NewReaderSize(os.Stdin, 1<<20)
	out := json.NewEncoder(os.Stdout)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		var asked request
		if err := json.Unmarshal(line, &asked); err != nil {
			fmt.Fprintln(os.Stderr, "oracle:", err)
			os.Exit(2)
		}
		body, err := hex.DecodeString(asked.Hex)
		if err != nil || asked.Op != "roundtrip" {
			fmt.Fprintf(os.Stderr, "oracle: bad request %q: %v\n", asked.Op, err)
			os.Exit(2)
		}
		if err := out.Encode(roundtrip(body)); err != nil {
			fmt.Fprintln(os.Stderr, "oracle:", err)
			os.Exit(2)
		}
	}
}
