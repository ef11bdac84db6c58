// Command codecbench measures Go Machinery's own encoding and decoding of message bodies.
//
// It reads one body a line from standard input, hex encoded, before the first empty line. After that each line
// "encode INDEX SECONDS" or "decode INDEX SECONDS" is answered with a rate in operations a second, so that
// the caller can alternate its own rounds with ours.
package main

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/RichardKnop/machinery/v2/tasks"
)

// decode reads a body as Machinery's brokers do.
func decode(body []byte) *tasks.Signature {
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	signature := new(tasks.Signature)
	if err := decoder.Decode(signature); err != nil {
		panic(err)
	}
	return signature
}

func rate(work func(), seconds float64) float64 {
	const batch = 50
	done := 0
	start := time.Now()
	for {
		for range [batch]struct{}{} {
			work()
		}
		done += batch
		if elapsed := time.Since(start).Seconds(); elapsed >= seconds {
			return float64(done) / elapsed
		}
	}
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(make([]byte, 1<<20), 1<<26)
	var bodies [][]byte
	for lines.Scan() && lines.Text() != "" {
		body, err := hex.DecodeString(lines.Text())
		if err != nil {
			panic(err)
		}
		bodies = append(bodies, body)
	}
	for lines.Scan() {
		var what string
		var index int
		var seconds float64
		if _, err := fmt.Sscan(lines.Text(), &what, &index, &seconds); err != nil {
			panic(err)
		}
		body := bodies[index]
		work := func() { decode(body) }
		if what == "encode" {
			signature := decode(body)
			// As a producer has it: an int64, not a json.Number.
			for _, part := range flatten(signature) {
				for i := range part.Args {
					value, err := tasks.ReflectValue(part.Args[i].Type, part.Args[i].Value)
					if err != nil {
						panic(err)
					}
					part.Args[i].Value = value.Interface()
				}
			}
			work = func() {
				if _, err := json.Marshal(signature); err != nil {
					panic(err)
				}
			}
		}
		fmt.Println(rate(work, seconds))
	}
}

func flatten(signature *tasks.Signature) []*tasks.Signature {
	found := []*tasks.Signature{signature}
	for i := 0; i < len(found); i++ {
		found = append(found, found[i].OnSuccess...)
	}
	return found
}
