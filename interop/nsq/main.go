// Serves the real nsqd, github.com/nsqio/nsq/nsqd, until it is told to stop; its own command doesn't build with today's
// versions of what it needs.
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/nsqio/nsq/nsqd"
)

func main() {
	options := nsqd.NewOptions()
	port := flag.Int("port", 4150, "where to listen on 127.0.0.1")
	flag.StringVar(&options.DataPath, "data-path", ".", "where the queues are kept")
	flag.Int64Var(&options.MemQueueSize, "mem-queue-size", options.MemQueueSize, "messages kept in memory")
	flag.StringVar(&options.TLSCert, "tls-cert", "", "certificate")
	flag.StringVar(&options.TLSKey, "tls-key", "", "its key")
	flag.Parse()
	options.TCPAddress = fmt.Sprintf("127.0.0.1:%d", *port)
	options.HTTPAddress = "127.0.0.1:0"
	options.HTTPSAddress = ""
	options.MaxMsgTimeout = 15 * time.Minute
	daemon, err := nsqd.New(options)
	if err != nil {
		log.Fatal(err)
	}
	if err := daemon.LoadMetadata(); err != nil {
		log.Fatal(err)
	}
	if err := daemon.PersistMetadata(); err != nil {
		log.Fatal(err)
	}
	stopped := make(chan os.Signal, 1)
	signal.Notify(stopped, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-stopped
		daemon.Exit()
		os.Exit(0)
	}()
	if err := daemon.Main(); err != nil {
		log.Fatal(err)
	}
	select {} // the queues are still being written down
}
