#include "server/security/certificates.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <stdexcept>
#include <string_view>
#include <utility>

#include "server/security/secret_file.h"

namespace mobius {
namespace {

template <typename T, void (*kFree)(T*)>
struct Deleter {
  void operator()(T* object) const { kFree(object); }
};
using X509Ptr = std::unique_ptr<X509, Deleter<X509, X509_free>>;
using PkeyPtr = std::unique_ptr<EVP_PKEY, Deleter<EVP_PKEY, EVP_PKEY_free>>;

struct BioDeleter {
  void operator()(BIO* bio) const { BIO_free(bio); }
};
using BioPtr = std::unique_ptr<BIO, BioDeleter>;

BioPtr reader(const std::string& text) {
  return BioPtr(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

/// There is nobody to ask.
int no_password(char* /*buffer*/, int /*size*/, int /*writing*/, void* /*data*/) {
  return -1;
}

/// A failure to use the file that `key` names, with OpenSSL's reason.
std::runtime_error failure(std::string_view key, const std::string& file, std::string_view what) {
  const unsigned long error = ERR_peek_last_error();
  const char* reason = error == 0 ? nullptr : ERR_reason_error_string(error);
  ERR_clear_error();
  std::string text = std::string(key) + ": " + file + ": " + std::string(what);
  if (reason != nullptr) text.append(" (").append(reason).append(")");
  return std::runtime_error(text);
}

/// Calls `use` with every certificate of a PEM text, and returns how many there were.
template <typename Use>
int for_each_certificate(const std::string& pem, const Use& use) {
  const BioPtr bio = reader(pem);
  int count = 0;
  while (true) {
    X509Ptr certificate(PEM_read_bio_X509(bio.get(), nullptr, &no_password, nullptr));
    if (certificate == nullptr) break;
    use(count++, std::move(certificate));
  }
  // The text ends with "no start line"; anything else is damage.
  const unsigned long error = ERR_peek_last_error();
  if (ERR_GET_LIB(error) == ERR_LIB_PEM && ERR_GET_REASON(error) == PEM_R_NO_START_LINE) {
    ERR_clear_error();
    return count;
  }
  return -1;
}

std::string expiry_of(X509& certificate) {
  const BioPtr out(BIO_new(BIO_s_mem()));
  ASN1_TIME_print(out.get(), X509_get0_notAfter(&certificate));
  char* text = nullptr;
  const long size = BIO_get_mem_data(out.get(), &text);
  return {text, static_cast<std::size_t>(size)};
}

/// HTTP/1.1, whatever else a client offers; a client that does not offer it goes without ALPN.
int choose_protocol(SSL* /*ssl*/, const unsigned char** out, unsigned char* length,
                    const unsigned char* offered, unsigned int offered_length, void* /*data*/) {
  static constexpr unsigned char kHttp[] = {8, 'h', 't', 't', 'p', '/', '1', '.', '1'};
  unsigned char* chosen = nullptr;
  if (SSL_select_next_proto(&chosen, length, kHttp, sizeof kHttp, offered, offered_length) !=
      OPENSSL_NPN_NEGOTIATED) {
    return SSL_TLSEXT_ERR_NOACK;
  }
  *out = chosen;
  return SSL_TLSEXT_ERR_OK;
}

void use_certificate(const ServerConfig::Tls& options, TlsMaterial& material, SSL_CTX* context) {
  bool used = true;
  const int count = for_each_certificate(material.certificate, [&](int index, X509Ptr next) {
    if (index == 0) {
      material.expires = expiry_of(*next);
      used = SSL_CTX_use_certificate(context, next.get()) == 1;
    } else if (SSL_CTX_add0_chain_cert(context, next.get()) == 1) {
      static_cast<void>(next.release());
    } else {
      used = false;
    }
  });
  if (!used || count < 1) {
    throw failure("tls.certificate", options.certificate, "is no certificate in PEM");
  }
  const BioPtr bio = reader(material.key);
  const PkeyPtr key(PEM_read_bio_PrivateKey(bio.get(), nullptr, &no_password, nullptr));
  if (key == nullptr) {
    throw failure("tls.key", options.key, "is no private key in PEM without a password");
  }
  if (SSL_CTX_use_PrivateKey(context, key.get()) != 1 || SSL_CTX_check_private_key(context) != 1) {
    throw failure("tls.key", options.key, "does not belong to " + options.certificate);
  }
}

void ask_for_clients_certificate(const ServerConfig::Tls& options, const TlsMaterial& material,
                                 SSL_CTX* context) {
  bool used = true;
  const int count = for_each_certificate(material.client_ca, [&](int, X509Ptr authority) {
    used = used && X509_STORE_add_cert(SSL_CTX_get_cert_store(context), authority.get()) == 1 &&
           SSL_CTX_add_client_CA(context, authority.get()) == 1;
  });
  if (!used || count < 1) {
    throw failure("tls.client_ca", options.client_ca, "has no certificates in PEM");
  }
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
}

std::shared_ptr<const TlsMaterial> load(const ServerConfig::Tls& options, FileReading reading) {
  auto material = std::make_shared<TlsMaterial>();
  material->certificate = read_secret_file("tls.certificate", options.certificate, reading);
  material->key = read_secret_file("tls.key", options.key, reading);
  if (!options.client_ca.empty()) {
    material->client_ca = read_secret_file("tls.client_ca", options.client_ca, reading);
  }
  material->context.reset(SSL_CTX_new(TLS_server_method()), SSL_CTX_free);
  SSL_CTX* const context = material->context.get();
  if (context == nullptr) throw std::bad_alloc();
  SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
  // TLS 1.2 with forward secrecy and authenticated encryption only; of 1.3 there is nothing else.
  SSL_CTX_set_cipher_list(context, "ECDHE+AESGCM:ECDHE+CHACHA20");
  // No resumption: a session would outlive the certificates that it was checked with.
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_num_tickets(context, 0);
  SSL_CTX_set_options(context, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                   SSL_OP_CIPHER_SERVER_PREFERENCE);
  SSL_CTX_set_alpn_select_cb(context, &choose_protocol, nullptr);
  use_certificate(options, *material, context);
  if (!material->client_ca.empty()) ask_for_clients_certificate(options, *material, context);
  return material;
}

}  // namespace

Certificates::Certificates(const ServerConfig::Tls& options) : options_(options) {
  if (!options_.certificate.empty()) current_ = load(options_, FileReading::at_start);
}

std::shared_ptr<const TlsMaterial> Certificates::current() const {
  const std::lock_guard lock(mutex_);
  return current_;
}

Status Certificates::reload() try {
  if (options_.certificate.empty()) return {};
  auto loaded = load(options_, FileReading::again);
  const std::lock_guard lock(mutex_);
  current_ = std::move(loaded);
  return {};
} catch (const std::runtime_error& error) {
  return {StatusCode::failed_precondition, error.what()};
}

}  // namespace mobius
