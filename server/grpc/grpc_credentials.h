#pragma once

#include <grpcpp/security/server_credentials.h>

#include <memory>

#include "server/security/certificates.h"

namespace mobius {

/// What a gRPC server listens with: TLS as `certificates` have it when a client connects, or no
/// encryption where they are none. Both these and `certificates` must outlive the server, which
/// keeps no reference.
std::shared_ptr<grpc::ServerCredentials> grpc_credentials(const Certificates& certificates);

}  // namespace mobius
