#pragma once

#include <string>
#include <utility>

#include "core/error.h"

namespace thimble {

// What a client is told in OpenAI's error form:
// {"error": {"message", "type", "param", "code"}}.
class ApiError : public Error {
 public:
  ApiError(int status_code, const std::string& message, std::string parameter = "", std::string error_code = "",
           int retry_after_s = 0)
      : Error(message),
        status(status_code),
        param(std::move(parameter)),
        code(std::move(error_code)),
        retry_after(retry_after_s) {}

  int status;
  std::string param;  // the field that is at fault; empty: none
  std::string code;   // "model_not_found", "context_length_exceeded", ...; empty: none
  int retry_after;    // seconds; 0: not said
};

}  // namespace thimble
