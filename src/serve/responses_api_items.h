#pragma once

#include <string>
#include <vector>

#include "calls/json.h"
#include "data/row.h"
#include "serve/responses_api_store.h"

namespace thimble {

// The `input` of a Responses request as items of one form: message, function_call, function_call_output and reasoning,
// each with an id, contents as lists of parts. item_reference becomes what it names among what the owner has in the
// store. Throws ApiError 400 naming the field.
Json read_input_items(const Json& input, const ResponseStore& store, const std::string& owner);

// The conversation that such items are. Reasoning is left out, as the templates of reasoning models leave out that of
// earlier turns; the calls of one answer are one turn with what it said. Throws ApiError 400 for a result without its
// call, and where the last item is nothing to answer to.
std::vector<Turn> turns_of_items(const Json& items);

}  // namespace thimble
