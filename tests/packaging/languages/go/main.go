// Command interop makes the calls that its standard input describes, and tells how each ended.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"log"
	"os"
	"strings"
	"sync"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

type call struct {
	Name        string            `json:"name"`
	Method      string            `json:"method"`
	Requests    []json.RawMessage `json:"requests"`
	TimeoutS    float64           `json:"timeout_s"`
	CancelAfter int               `json:"cancel_after"` // messages; 0: never
	Times       int               `json:"times"`        // at once
	Compress    bool              `json:"compress"`
}

type made struct {
	Name     string    `json:"name"`
	Outcomes []outcome `json:"outcomes"`
}

type outcome struct {
	Code     codes.Code        `json:"code"`
	Reason   string            `json:"reason"`
	Messages []json.RawMessage `json:"messages"`
}

type input struct {
	Address       string `json:"address"`
	DescriptorSet string `json:"descriptor_set"`
	CA            string `json:"ca"`
	Certificate   string `json:"certificate"`
	Key           string `json:"key"`
	Calls         []call `json:"calls"`
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func credentialsOf(in input) credentials.TransportCredentials {
	if in.CA == "" {
		return insecure.NewCredentials()
	}
	authorities := x509.NewCertPool()
	authorities.AppendCertsFromPEM(must(os.ReadFile(in.CA)))
	own := must(tls.LoadX509KeyPair(in.Certificate, in.Key))
	return credentials.NewTLS(&tls.Config{RootCAs: authorities, Certificates: []tls.Certificate{own}})
}

func methodOf(files *protoregistry.Files, path string) protoreflect.MethodDescriptor {
	name := strings.ReplaceAll(strings.TrimPrefix(path, "/"), "/", ".")
	return must(files.FindDescriptorByName(protoreflect.FullName(name))).(protoreflect.MethodDescriptor)
}

func send(stream grpc.ClientStream, method protoreflect.MethodDescriptor, requests []json.RawMessage) error {
	for _, each := range requests {
		message := dynamicpb.NewMessage(method.Input())
		if err := protojson.Unmarshal(each, message); err != nil {
			log.Fatal(err)
		}
		if err := stream.SendMsg(message); err != nil && !errors.Is(err, io.EOF) { // EOF: RecvMsg knows why
			return err
		}
	}
	return stream.CloseSend()
}

func makeCall(conn *grpc.ClientConn, method protoreflect.MethodDescriptor, c call) ([]json.RawMessage, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(c.TimeoutS*float64(time.Second)))
	defer cancel()
	var options []grpc.CallOption
	if c.Compress {
		options = append(options, grpc.UseCompressor(gzip.Name))
	}
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, c.Method, options...)
	if err != nil {
		return nil, err
	}
	if err := send(stream, method, c.Requests); err != nil {
		return nil, err
	}
	var messages []json.RawMessage
	for {
		message := dynamicpb.NewMessage(method.Output())
		if err := stream.RecvMsg(message); errors.Is(err, io.EOF) {
			return messages, nil
		} else if err != nil {
			return messages, err
		}
		text := must(protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}.Marshal(message))
		if messages = append(messages, text); len(messages) == c.CancelAfter {
			cancel()
		}
	}
}

func outcomeOf(messages []json.RawMessage, err error) outcome {
	told := status.Convert(err)
	found := outcome{Code: told.Code(), Messages: messages}
	for _, detail := range told.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			found.Reason = info.Reason
		}
	}
	return found
}

func main() {
	var in input
	if err := json.NewDecoder(os.Stdin).Decode(&in); err != nil {
		log.Fatal(err)
	}
	var set descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(must(os.ReadFile(in.DescriptorSet)), &set); err != nil {
		log.Fatal(err)
	}
	files := must(protodesc.NewFiles(&set))
	conn := must(grpc.NewClient(in.Address, grpc.WithTransportCredentials(credentialsOf(in))))
	defer conn.Close()
	var all []made
	for _, each := range in.Calls {
		found, method := make([]outcome, max(each.Times, 1)), methodOf(files, each.Method)
		var running sync.WaitGroup
		for place := range found {
			running.Go(func() { found[place] = outcomeOf(makeCall(conn, method, each)) })
		}
		running.Wait()
		all = append(all, made{each.Name, found})
	}
	if err := json.NewEncoder(os.Stdout).Encode(all); err != nil {
		log.Fatal(err)
	}
}
