// TestAuthority: an authority of its own for a test, and certificates that it signs, as PEM files. For tests and benchmarks only; link OpenSSL.
#pragma once

#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>

#include <cstdio>
#include <memory>
#include <string>
#include <utility>

#include "ray/util/check.h"

namespace ray {

class TestAuthority {
 public:
  // Writes its own certificate to `folder`/ca.pem.
  explicit TestAuthority(std::string folder) : folder_(std::move(folder)), key_(EVP_EC_gen("P-256")) {
    certificate_ = Make("authority", key_.get());
    Write(ca(), [this](FILE* file) { return PEM_write_X509(file, certificate_.get()); });
  }
  std::string ca() const { return folder_ + "/ca.pem"; }
  std::string certificate(const std::string& name) const { return folder_ + "/" + name + ".pem"; }
  std::string key(const std::string& name) const { return folder_ + "/" + name + ".key"; }
  // Writes a certificate and its key.
  void Issue(const std::string& name) {
    const Key key(EVP_EC_gen("P-256"));
    const Certificate made = Make(name, key.get());
    Write(certificate(name), [&](FILE* file) { return PEM_write_X509(file, made.get()); });
    Write(this->key(name), [&](FILE* file) { return PEM_write_PrivateKey(file, key.get(), nullptr, nullptr, 0, nullptr, nullptr); });
  }

 private:
  struct Free {
    void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
    void operator()(X509* certificate) const { X509_free(certificate); }
  };
  using Key = std::unique_ptr<EVP_PKEY, Free>;
  using Certificate = std::unique_ptr<X509, Free>;

  Certificate Make(const std::string& name, EVP_PKEY* key) {
    Certificate made(X509_new());
    X509_set_version(made.get(), 2);
    ASN1_INTEGER_set(X509_get_serialNumber(made.get()), ++last_serial_);
    X509_gmtime_adj(X509_getm_notBefore(made.get()), -60);
    X509_gmtime_adj(X509_getm_notAfter(made.get()), 24 * 3600);
    X509_set_pubkey(made.get(), key);
    X509_NAME* subject = X509_get_subject_name(made.get());
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
    X509_set_issuer_name(made.get(), certificate_ == nullptr ? subject : X509_get_subject_name(certificate_.get()));
    if (certificate_ == nullptr) {
      X509_EXTENSION* authority = X509V3_EXT_conf_nid(nullptr, nullptr, NID_basic_constraints, "critical,CA:TRUE");
      X509_add_ext(made.get(), authority, -1);
      X509_EXTENSION_free(authority);
    }
    RAY_CHECK(X509_sign(made.get(), key_.get(), EVP_sha256()) > 0);
    return made;
  }
  template <typename Fn>
  static void Write(const std::string& path, Fn write) {
    FILE* file = std::fopen(path.c_str(), "w");
    RAY_CHECK(file != nullptr && ::fchmod(::fileno(file), 0600) == 0 && write(file) == 1 && std::fclose(file) == 0) << path;
  }

  const std::string folder_;
  const Key key_;
  Certificate certificate_;  // null until it is made
  int last_serial_ = 0;
};

}  // namespace ray
