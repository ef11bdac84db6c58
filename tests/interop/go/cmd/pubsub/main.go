// Command pubsub is a Pub/Sub server that keeps everything in memory: Google's own fake, which
// speaks gRPC only, with the few calls over HTTP and JSON that the Python side makes.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"cloud.google.com/go/pubsub/pstest"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/h2c"
	pb "google.golang.org/genproto/googleapis/pubsub/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

const (
	pullPause = time.Millisecond
	pullTime  = 60 * time.Second
	// The fake hands messages to streams every 10 ms.
	streamPause = 25 * time.Millisecond
)

// httpCodes are those of Google's JSON API.
var httpCodes = map[codes.Code]int{codes.NotFound: 404, codes.AlreadyExists: 409, codes.InvalidArgument: 400}

func main() {
	address := flag.String("address", "127.0.0.1:8085", "where to listen")
	flag.Parse()
	// It also listens on a port that it chooses itself, where nobody comes.
	fake := pstest.NewServer()
	grpcServer := grpc.NewServer()
	pb.RegisterPublisherServer(grpcServer, &fake.GServer)
	pb.RegisterSubscriberServer(grpcServer, &fake.GServer)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
			grpcServer.ServeHTTP(w, r)
			return
		}
		answer(w, r, &fake.GServer)
	})
	fmt.Fprintln(os.Stderr, http.ListenAndServe(*address, h2c.NewHandler(handler, &http2.Server{})))
	os.Exit(1)
}

func answer(w http.ResponseWriter, r *http.Request, server *pstest.GServer) {
	w.Header().Set("Content-Type", "application/json")
	reply, err := call(r, server)
	if err == nil {
		text, _ := protojson.Marshal(reply)
		_, _ = w.Write(text)
		return
	}
	known := status.Convert(err)
	code := httpCodes[known.Code()]
	if code == 0 {
		code = http.StatusInternalServerError
	}
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{"code": code, "message": known.Message()}})
}

func call(r *http.Request, s *pstest.GServer) (proto.Message, error) {
	ctx := r.Context()
	name, verb, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v1/"), ":")
	isTopic := strings.Contains(name, "/topics/")
	switch {
	case r.Method == http.MethodGet && isTopic:
		return s.GetTopic(ctx, &pb.GetTopicRequest{Topic: name})
	case r.Method == http.MethodGet:
		return s.GetSubscription(ctx, &pb.GetSubscriptionRequest{Subscription: name})
	case r.Method == http.MethodPut && isTopic:
		return s.CreateTopic(ctx, &pb.Topic{Name: name})
	case r.Method == http.MethodPut:
		asked := &pb.Subscription{}
		return with(r, asked, func() (proto.Message, error) { asked.Name = name; return s.CreateSubscription(ctx, asked) })
	case verb == "publish":
		asked := &pb.PublishRequest{}
		return with(r, asked, func() (proto.Message, error) { asked.Topic = name; return s.Publish(ctx, asked) })
	case verb == "acknowledge":
		asked := &pb.AcknowledgeRequest{}
		return with(r, asked, func() (proto.Message, error) { asked.Subscription = name; return s.Acknowledge(ctx, asked) })
	case verb == "modifyAckDeadline":
		asked := &pb.ModifyAckDeadlineRequest{}
		return with(r, asked, func() (proto.Message, error) { asked.Subscription = name; return s.ModifyAckDeadline(ctx, asked) })
	case verb == "pull":
		asked := &pb.PullRequest{}
		return with(r, asked, func() (proto.Message, error) { asked.Subscription = name; return pull(r, s, asked) })
	}
	return nil, status.Errorf(codes.InvalidArgument, "no such call: %s %s", r.Method, r.URL.Path)
}

// with reads a request and makes the call.
func with(r *http.Request, asked proto.Message, then func() (proto.Message, error)) (proto.Message, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(body, asked); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	return then()
}

// turns are the messages that a pull has had last, and that a stream may have now.
var turns sync.Map

// pull waits for a message as Google's service does, for as long as the caller says. What it has
// had already goes to the streams, as Go has them, the next time: the fake would leave them nothing.
func pull(r *http.Request, s *pstest.GServer, asked *pb.PullRequest) (*pb.PullResponse, error) {
	wait := pullTime
	if seconds, err := strconv.Atoi(r.Header.Get("X-Server-Timeout")); err == nil {
		wait = time.Duration(seconds) * time.Second
	}
	ctx, cancel := context.WithTimeout(r.Context(), wait)
	defer cancel()
	once := asked.ReturnImmediately
	asked.ReturnImmediately = true
	for {
		found, err := s.Pull(ctx, asked)
		if err != nil || once {
			return found, err
		}
		pause := pullPause
		ours := []*pb.ReceivedMessage{}
		back := &pb.ModifyAckDeadlineRequest{Subscription: asked.Subscription}
		for _, message := range found.ReceivedMessages {
			key := asked.Subscription + message.AckId
			if _, had := turns.LoadAndDelete(key); had {
				back.AckIds = append(back.AckIds, message.AckId)
				pause = streamPause
			} else {
				turns.Store(key, true)
				ours = append(ours, message)
			}
		}
		if len(back.AckIds) > 0 {
			_, _ = s.ModifyAckDeadline(ctx, back)
		}
		if len(ours) > 0 {
			return &pb.PullResponse{ReceivedMessages: ours}, nil
		}
		select {
		case <-ctx.Done():
			return &pb.PullResponse{}, nil
		case <-time.After(pause):
		}
	}
}
