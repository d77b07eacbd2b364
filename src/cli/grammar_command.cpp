#include <fmt/core.h>

#include "calls/constraint.h"
#include "cli/commands.h"
#include "data/job.h"

namespace thimble {

int grammar_command(const GrammarOptions& options) {
  const Job job = load_job(options.job);
  const GrammarForm form = options.form == "gbnf" ? GrammarForm::kGbnf : GrammarForm::kXgrammar;
  fmt::print("{}", answer_grammar(job.tools, {.plan = job.plan}, form));
  return kOk;
}

}  // namespace thimble
