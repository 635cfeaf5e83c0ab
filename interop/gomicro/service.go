package main

import (
	"context"
	"io"
	"sync"
	"time"

	"go-micro.dev/v5/errors"
	"go-micro.dev/v5/metadata"

	"ketch/interop/gomicro/greeter"
)

// Greeter serves the contract as any go-micro service would.
type Greeter struct{}

// Hello says who it is, and how much time it was given.
func (Greeter) Hello(ctx context.Context, in *greeter.HelloRequest, out *greeter.HelloReply) error {
	out.Text = "Go greets " + in.Name
	if deadline, ok := ctx.Deadline(); ok {
		out.MillisecondsLeft = time.Until(deadline).Milliseconds()
	}
	return nil
}

// Fail ends with the error that is asked for.
func (Greeter) Fail(_ context.Context, in *greeter.FailRequest, _ *greeter.HelloReply) error {
	return errors.New("go.greeter", in.Detail, in.Code)
}

// Count sends so many replies, and fails after them if it is asked to.
func (Greeter) Count(_ context.Context, in *greeter.CountRequest, stream greeter.Greeter_CountStream) error {
	for number := range in.To {
		if err := stream.Send(&greeter.HelloReply{MillisecondsLeft: int64(number)}); err != nil {
			return err
		}
	}
	if in.Fail {
		return errors.NotFound("go.greeter", "there is no more")
	}
	return nil
}

// Echo answers each message as it comes.
func (Greeter) Echo(_ context.Context, stream greeter.Greeter_EchoStream) error {
	for {
		in, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(&greeter.HelloReply{Text: "Go greets " + in.Name}); err != nil {
			return err
		}
	}
}

// Heard is an event as a subscriber got it.
type Heard struct {
	Subscriber string            `json:"subscriber"`
	Name       string            `json:"name"`
	Number     int64             `json:"number"`
	Metadata   map[string]string `json:"metadata"`
}

// Events keeps what was heard.
type Events struct {
	mutex sync.Mutex
	heard []Heard
}

// Listen returns a subscriber's handler.
func (e *Events) Listen(subscriber string) func(context.Context, *greeter.Greeted) error {
	return func(ctx context.Context, event *greeter.Greeted) error {
		found, _ := metadata.FromContext(ctx)
		e.mutex.Lock()
		defer e.mutex.Unlock()
		e.heard = append(e.heard, Heard{subscriber, event.Name, event.Number, found})
		return nil
	}
}

// All returns what was heard so far.
func (e *Events) All() []Heard {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	return append([]Heard{}, e.heard...)
}
