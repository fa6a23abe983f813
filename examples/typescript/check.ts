// A client in TypeScript: a check, a list in pages, and the reason of an error.
//
// npm install
// npm start
//
// It asks the server at AUTHZ_ADDRESS, or 127.0.0.1:50051, about the roster of the README.

import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

import type { ProtoGrpcType as Authorization } from "./gen/authorization.js";
import type { CheckResponse__Output as Answer } from "./gen/authz/v1/CheckResponse.js";
import type { ListResourcesResponse__Output as Page } from "./gen/authz/v1/ListResourcesResponse.js";
import type { ProtoGrpcType as ErrorDetails } from "./gen/error_details.js";

// The same options as those of `npm run generate`, which makes the types.
const files = ["authz/v1/authorization.proto", "google/rpc/error_details.proto"];
const options = { includeDirs: ["../../protos"], longs: String, enums: String, defaults: true };
const protos = grpc.loadPackageDefinition(loadSync(files, options)) as unknown as Authorization & ErrorDetails;

const client = new protos.authz.v1.AuthorizationService(
  process.env.AUTHZ_ADDRESS ?? "127.0.0.1:50051",
  grpc.credentials.createInsecure(),
  // Notices within seconds that a host vanished.
  {
    "grpc.keepalive_time_ms": 10_000,
    "grpc.keepalive_timeout_ms": 4_000,
    "grpc.keepalive_permit_without_calls": 1,
  },
);
const maya = { type: "SUBJECT_TYPE_USER", id: "maya" } as const;
const deadline = () => ({ deadline: Date.now() + 2000 });

// Rejects when there is no answer: treat that as a denial.
function check(action: string, type: string, id: string): Promise<Answer> {
  const question = { subject: maya, action, resource: { type, id } };
  return new Promise((resolve, reject) => {
    client.check(question, deadline(), (error, answer) => (answer ? resolve(answer) : reject(error)));
  });
}

async function* listResources(action: string): AsyncGenerator<string> {
  let pageToken = "";
  do {
    const page = await new Promise<Page>((resolve, reject) => {
      const request = { subject: maya, action, pageToken };
      client.listResources(request, deadline(), (error, page) => (page ? resolve(page) : reject(error)));
    });
    for (const { type, id } of page.resources) yield `${type}:${id}`;
    pageToken = page.nextPageToken;
  } while (pageToken);
}

// A name of authz.v1.ErrorReason, or "" when no server answered.
function reasonOf(error: grpc.ServiceError): string {
  const [bytes] = error.metadata.get("grpc-status-details-bin");
  if (!(bytes instanceof Buffer)) return "";
  const { Status, ErrorInfo } = { ...protos.google.rpc };
  const details = Status.deserialize(bytes).details;
  const info = details.find((detail) => detail.type_url.endsWith("/google.rpc.ErrorInfo"));
  return info ? ErrorInfo.deserialize(info.value).reason : "";
}

const answer = await check("read", "material", "m-1");
console.log(answer.allowed, answer.reason);

for await (const resource of listResources("read")) console.log(resource);

await check("raed", "material", "m-1").catch((error) => console.log(grpc.status[error.code], reasonOf(error)));
client.close();
