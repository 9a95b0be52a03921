// The flags of both executables that say who may speak to them over TCP.
#pragma once

#include <string>

#include "ray/rpc/grpc/security.h"
#include "ray/util/flags.h"

namespace ray {

inline void AddSecurityFlags(FlagParser* flags, std::string* auth_mode, rpc::SecurityConfig* config) {
  flags->Group("Security");
  flags->Add("auth-mode", "token, or disabled: nobody is asked for one, which is for loopback addresses only", auth_mode);
  flags->Add("auth-token-file", "file with the cluster's token, mode 0600; looked at again when it changes. Every TCP listener needs it",
             &config->token_file);
  flags->Add("auth-token-grace", "how long the token before the last change stays good", &config->token_grace);
  flags->Add("tls-cert", "PEM file with this node's certificate; with --tls-key and --tls-ca: mutual TLS on every TCP connection",
             &config->tls_cert);
  flags->Add("tls-key", "PEM file with its key, mode 0600", &config->tls_key);
  flags->Add("tls-ca", "PEM file with the authority that signs the certificates of the cluster", &config->tls_ca);
}

inline Status CompleteSecurity(const std::string& auth_mode, rpc::SecurityConfig* config) {
  if (auth_mode != "token" && auth_mode != "disabled")
    return Status::InvalidArgument("--auth-mode: '" + auth_mode + "' is neither token nor disabled");
  config->disabled = auth_mode == "disabled";
  return {};
}

}  // namespace ray
