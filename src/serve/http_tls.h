#pragma once

#include <filesystem>
#include <memory>

struct ssl_ctx_st;

namespace thimble {

struct TlsFiles {
  std::filesystem::path certificate;  // PEM, the chain with it
  std::filesystem::path key;          // PEM, not encrypted
};

struct TlsContextDeleter {
  void operator()(ssl_ctx_st* context) const;
};
using TlsContext = std::unique_ptr<ssl_ctx_st, TlsContextDeleter>;

// A server's side of TLS 1.2 and 1.3. Throws Error where a file can't be read or the key is not the certificate's.
TlsContext tls_context(const TlsFiles& files);

}  // namespace thimble
