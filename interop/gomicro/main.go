// A go-micro service that is told over its standard input what to call and to publish, and answers on its standard output:
// one JSON object a line each way. Broker and registry are what go-micro's own variables say.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"time"

	"go-micro.dev/v5"
	"go-micro.dev/v5/broker"
	"go-micro.dev/v5/broker/rabbitmq"
	"go-micro.dev/v5/client"
	clientgrpc "go-micro.dev/v5/client/grpc"
	"go-micro.dev/v5/errors"
	"go-micro.dev/v5/logger"
	"go-micro.dev/v5/server"
	servergrpc "go-micro.dev/v5/server/grpc"

	"ketch/interop/gomicro/greeter"
)

// Order is what is to be done.
type Order struct {
	Do          string `json:"do"`
	Service     string `json:"service"`
	Name        string `json:"name"`
	Number      int64  `json:"number"`
	Code        int32  `json:"code"`
	Fail        bool   `json:"fail"`
	Topic       string `json:"topic"`
	ContentType string `json:"content_type"`
	Timeout     int64  `json:"timeout"` // milliseconds
}

func main() {
	answers := os.Stdout
	os.Stdout = os.Stderr // where go-micro's own log goes
	events := &Events{}
	done := make(chan bool)
	options := []micro.Option{
		micro.Server(servergrpc.NewServer()), // gRPC on both sides: these two lines are what ketch needs of a Go program
		micro.Client(clientgrpc.NewClient()),
		micro.Name("go.greeter"),
		micro.Version("1.2.3"),
		micro.RegisterTTL(10 * time.Second),
		micro.RegisterInterval(2 * time.Second),
		micro.AfterStart(func() error { close(done); return nil }),
	}
	if url := os.Getenv("INTEROP_RABBITMQ"); url != "" {
		// Its exchange has a name of its own, and isn't durable, unless it is told.
		options = append(options, micro.Broker(rabbitmq.NewBroker(
			broker.Addrs(url), rabbitmq.ExchangeName("ketch"), rabbitmq.DurableExchange())))
	}
	service := micro.NewService(options...)
	service.Init()
	must(greeter.RegisterGreeterHandler(service.Server(), Greeter{}))
	must(micro.RegisterSubscriber("greeted.by.ketch", service.Server(), events.Listen("all")))
	must(micro.RegisterSubscriber("shared.by.ketch", service.Server(), events.Listen("queue"), server.SubscriberQueue("shared")))
	must(micro.RegisterSubscriber("shared.by.go", service.Server(), events.Listen("queue"), server.SubscriberQueue("shared")))
	go func() {
		<-done
		obey(service, events, answers)
	}()
	must(service.Run())
}

func obey(service micro.Service, events *Events, answers *os.File) {
	out := json.NewEncoder(answers)
	must(out.Encode(map[string]any{"ready": service.Server().Options().Id}))
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var order Order
		must(json.Unmarshal(lines.Bytes(), &order))
		answer, err := do(service, events, order)
		if err != nil {
			answer = map[string]any{"error": errors.FromError(err)}
		}
		must(out.Encode(answer))
	}
}

func do(service micro.Service, events *Events, order Order) (any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	peer := greeter.NewGreeterService(order.Service, service.Client())
	switch order.Do {
	case "hello":
		if order.Timeout > 0 {
			return peer.Hello(context.Background(), &greeter.HelloRequest{Name: order.Name},
				client.WithRequestTimeout(time.Duration(order.Timeout)*time.Millisecond))
		}
		return peer.Hello(ctx, &greeter.HelloRequest{Name: order.Name})
	case "json":
		request := service.Client().NewRequest(order.Service, "Greeter.Hello",
			&greeter.HelloRequest{Name: order.Name}, client.WithContentType("application/grpc+json"))
		reply := &greeter.HelloReply{}
		return reply, service.Client().Call(ctx, request, reply)
	case "fail":
		return peer.Fail(ctx, &greeter.FailRequest{Code: order.Code, Detail: order.Name})
	case "missing":
		request := service.Client().NewRequest(order.Service, "Greeter.Missing", &greeter.HelloRequest{})
		return nil, service.Client().Call(ctx, request, &greeter.HelloReply{})
	case "count":
		return count(ctx, peer, order)
	case "echo":
		return echo(ctx, peer, order)
	case "publish":
		options := []client.MessageOption{}
		if order.ContentType != "" {
			options = append(options, client.WithMessageContentType(order.ContentType))
		}
		event := &greeter.Greeted{Name: order.Name, Number: order.Number}
		return map[string]any{}, service.Client().Publish(ctx, service.Client().NewMessage(order.Topic, event, options...))
	case "heard":
		return events.All(), nil
	case "nodes":
		return service.Options().Registry.GetService(order.Service)
	}
	return nil, errors.BadRequest("go.greeter", "no such order: %s", order.Do)
}

func count(ctx context.Context, peer greeter.GreeterService, order Order) (any, error) {
	stream, err := peer.Count(ctx, &greeter.CountRequest{To: int32(order.Number), Fail: order.Fail})
	if err != nil {
		return nil, err
	}
	numbers := []int64{}
	for {
		reply, err := stream.Recv()
		if err != nil {
			return map[string]any{"numbers": numbers, "end": err.Error()}, nil
		}
		numbers = append(numbers, reply.MillisecondsLeft)
	}
}

func echo(ctx context.Context, peer greeter.GreeterService, order Order) (any, error) {
	stream, err := peer.Echo(ctx)
	if err != nil {
		return nil, err
	}
	texts := []string{}
	for range order.Number {
		if err := stream.Send(&greeter.HelloRequest{Name: order.Name}); err != nil {
			return nil, err
		}
		reply, err := stream.Recv()
		if err != nil {
			return nil, err
		}
		texts = append(texts, reply.Text)
	}
	return map[string]any{"texts": texts}, stream.Close()
}

func must(err error) {
	if err != nil {
		logger.Fatal(err)
	}
}
