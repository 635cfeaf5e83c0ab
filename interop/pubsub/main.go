// Serves Google's in-memory fake of Pub/Sub, cloud.google.com/go/pubsub/pstest, until it is killed.
package main

import (
	"flag"
	"fmt"
	"log"

	"cloud.google.com/go/pubsub/v2/pstest"
)

func main() {
	port := flag.Int("port", 8085, "where to listen on 127.0.0.1")
	flag.Parse()
	server := pstest.NewServerWithPort(*port)
	defer server.Close()
	fmt.Println("serving", server.Addr)
	log.SetFlags(0)
	select {}
}
