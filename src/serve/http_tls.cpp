#include "serve/http_tls.h"

#include <fmt/core.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include <cstring>
#include <new>
#include <string>

#include "core/error.h"

namespace thimble {
namespace {

std::string reason() {
  const unsigned long code = ERR_get_error();
  ERR_clear_error();
  const char* text = ERR_reason_error_string(code);
  return text != nullptr ? text : "unknown reason";
}

// Clients that offer protocols (ALPN) get HTTP/1.1 where it is among them.
int choose_protocol(SSL*, const unsigned char** out, unsigned char* length, const unsigned char* in, unsigned in_length,
                    void*) {
  static constexpr unsigned char ours[] = "\x08http/1.1";
  unsigned char* chosen = nullptr;
  if (SSL_select_next_proto(&chosen, length, ours, sizeof(ours) - 1, in, in_length) != OPENSSL_NPN_NEGOTIATED) {
    return SSL_TLSEXT_ERR_NOACK;
  }
  *out = chosen;
  return SSL_TLSEXT_ERR_OK;
}

// Without this, OpenSSL asks at the terminal, and a server waits there for ever.
int no_password(char*, int, int, void*) { return 0; }

}  // namespace

void TlsContextDeleter::operator()(ssl_ctx_st* context) const { SSL_CTX_free(context); }

TlsContext tls_context(const TlsFiles& files) {
  TlsContext context(SSL_CTX_new(TLS_server_method()));
  if (!context) throw std::bad_alloc();
  SSL_CTX* c = context.get();
  SSL_CTX_set_min_proto_version(c, TLS1_2_VERSION);
  SSL_CTX_set_options(c, SSL_OP_NO_RENEGOTIATION | SSL_OP_IGNORE_UNEXPECTED_EOF | SSL_OP_NO_COMPRESSION);
  // Idle connections give their record buffers back; what waits to be sent may move in memory.
  SSL_CTX_set_mode(c, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_alpn_select_cb(c, choose_protocol, nullptr);
  SSL_CTX_set_default_passwd_cb(c, no_password);
  ERR_clear_error();
  if (SSL_CTX_use_certificate_chain_file(c, files.certificate.c_str()) != 1) {
    throw Error(fmt::format("{}: can't be read as a certificate ({}); it must be PEM, with its chain behind it",
                            files.certificate.string(), reason()));
  }
  // OpenSSL keeps a certificate of each kind of key: one of another kind is taken, and missed at the first handshake.
  if (SSL_CTX_use_PrivateKey_file(c, files.key.c_str(), SSL_FILETYPE_PEM) != 1 || SSL_CTX_check_private_key(c) != 1) {
    throw Error(fmt::format("{}: can't be read as the key of {} ({}); it must be PEM, unencrypted, and belong to it",
                            files.key.string(), files.certificate.string(), reason()));
  }
  return context;
}

}  // namespace thimble
