"""ketch: event-driven microservices, with one protobuf contract for events and calls."""
