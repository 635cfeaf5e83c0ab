"""gRPC (github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md) over ketch.http2.

content.py timeouts.py metadata.py status.py compression.py     what header fields and flags say
heads.py answers.py                                             header blocks, read and written once
inbox.py duplex.py                                              messages on a stream
wire.py deadlines.py                                            a connection on a socket
serving.py server.py listener.py                                the server's side
calling.py client.py channel.py                                 the client's side
address.py tuning.py                                            where, and how
"""
