#include "ray/rpc/grpc/tls.h"

#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_certificate_verifier.h>
#include <grpcpp/security/tls_credentials_options.h>

namespace ray::rpc {
namespace {

constexpr unsigned kRefreshSeconds = 5;

std::shared_ptr<grpc::experimental::CertificateProviderInterface> ProviderFor(const SecurityConfig& config) {
  return std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(config.tls_key, config.tls_cert, config.tls_ca,
                                                                              kRefreshSeconds);
}

void Watch(grpc::experimental::TlsCredentialsOptions* options) {
  options->watch_root_certs();
  options->watch_identity_key_cert_pairs();
  options->set_certificate_verifier(std::make_shared<grpc::experimental::NoOpCertificateVerifier>());  // beyond the chain, which is checked
}

}  // namespace

std::shared_ptr<grpc::ServerCredentials> ServerCredentialsFor(const Security* security) {
  if (security == nullptr || !security->has_tls()) return grpc::InsecureServerCredentials();
  grpc::experimental::TlsServerCredentialsOptions options(ProviderFor(security->config()));
  Watch(&options);
  options.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  return grpc::experimental::TlsServerCredentials(options);
}

std::shared_ptr<grpc::ChannelCredentials> ChannelCredentialsFor(const Security* security) {
  if (security == nullptr || !security->has_tls()) return grpc::InsecureChannelCredentials();
  grpc::experimental::TlsChannelCredentialsOptions options;
  options.set_certificate_provider(ProviderFor(security->config()));
  Watch(&options);
  options.set_verify_server_certs(true);
  options.set_check_call_host(false);
  return grpc::experimental::TlsCredentials(options);
}

}  // namespace ray::rpc
