// Makes the calls that standard input describes, and tells how each ended.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(`${process.cwd()}/`); // where the packages are installed
const grpc = require("@grpc/grpc-js");
const protoLoader = require("@grpc/proto-loader");

const input = JSON.parse(readFileSync(0, "utf8"));
const options = { keepCase: true, enums: String, longs: String, defaults: true };
const loaded = protoLoader.loadFileDescriptorSetFromBuffer(readFileSync(input.descriptor_set), options);
const credentials = input.ca
  ? grpc.credentials.createSsl(readFileSync(input.ca), readFileSync(input.key), readFileSync(input.certificate))
  : grpc.credentials.createInsecure();
const GZIP = 2;

function reasonOf(error) {
  const [bytes] = error.metadata?.get("grpc-status-details-bin") ?? [];
  if (!bytes) return "";
  const details = loaded["google.rpc.Status"].deserialize(bytes).details;
  const info = details.find((detail) => detail.type_url.endsWith("/google.rpc.ErrorInfo"));
  return info ? loaded["google.rpc.ErrorInfo"].deserialize(info.value).reason : "";
}

// Whatever streams or not: the other kinds of calls look like one that streams both ways.
function makeCall(client, method, { requests, timeout_s, cancel_after }) {
  return new Promise((resolve) => {
    const deadline = Date.now() + timeout_s * 1000;
    const stream = client.makeBidiStreamRequest(
      method.path, method.requestSerialize, method.responseDeserialize, new grpc.Metadata(), { deadline },
    );
    const messages = [];
    stream.on("data", (message) => {
      if (messages.push(message) === cancel_after) stream.cancel();
    });
    stream.on("error", (error) => resolve({ code: error.code, reason: reasonOf(error), messages }));
    stream.on("status", (status) => status.code === 0 && resolve({ code: 0, reason: "", messages }));
    for (const each of requests) stream.write(each);
    stream.end();
  });
}

const made = [];
for (const call of input.calls) {
  const [, service, methodName] = call.method.split("/");
  const compression = call.compress ? { "grpc.default_compression_algorithm": GZIP } : {};
  const client = new grpc.Client(input.address, credentials, compression);
  const method = loaded[service][methodName];
  const times = Array.from({ length: call.times || 1 });
  const outcomes = await Promise.all(times.map(() => makeCall(client, method, call)));
  made.push({ name: call.name, outcomes });
  client.close();
}
process.stdout.write(JSON.stringify(made));
