#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "core/error.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

// tokenizer.json, a zero byte, and a text to encode. Whatever was read must stream to what it decodes.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  const size_t zero = bytes.find('\0');
  thimble::Vocabulary vocabulary;
  vocabulary.tokenizer_json = bytes.substr(0, zero);
  const std::string text = zero == std::string::npos ? "I've 12 \xff caf\xc3\xa9s\n" : bytes.substr(zero + 1);
  try {
    const thimble::Tokenizer tokenizer = thimble::Tokenizer::from(vocabulary);
    const std::vector<int32_t> ids = tokenizer.encode(text, {true, true});
    const std::string whole = tokenizer.decode(ids);
    thimble::StreamDecoder stream(tokenizer);
    std::string parts;
    for (const int32_t id : ids) {
      const std::string part = stream.push(id);
      if (!thimble::is_valid_utf8(part)) std::abort();
      parts += part;
    }
    if (parts + stream.flush() != whole) std::abort();
  } catch (const thimble::Error&) {
  }
  return 0;
}
