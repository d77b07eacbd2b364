#pragma once

namespace thimble {

// The tables of the contents log, version 1 (docs/serve.md tells their columns to users). `number` grows and is
// never given twice, so that a reader can go on where it was. A trigger deletes answers with their request, since
// foreign keys are off in most tools that open the file.
inline constexpr const char* kContentsSchema = R"sql(
CREATE TABLE requests (
  number            INTEGER PRIMARY KEY AUTOINCREMENT,  -- in the order of their ends
  id                TEXT NOT NULL UNIQUE,    -- that the answer carries
  http_id           TEXT NOT NULL,           -- that its header x-request-id carries
  time_ms           INTEGER NOT NULL,        -- when it was asked, milliseconds since 1970
  path              TEXT NOT NULL,           -- of the API
  key_name          TEXT,                    -- of the API key, never the key
  model_asked       TEXT,                    -- NULL: it named none
  model             TEXT NOT NULL,           -- that answered
  base              TEXT NOT NULL,           -- and what it is made of
  base_fingerprint  TEXT NOT NULL,
  adapter           TEXT,                    -- folder or file; NULL: the base itself
  messages          TEXT,                    -- JSON, these five: the request's fields as they came
  prompt            TEXT,
  system            TEXT,
  tools             TEXT,
  response_format   TEXT,
  parameters        TEXT NOT NULL,           -- JSON: all its other fields
  status            TEXT NOT NULL,           -- 200, that of a failure, or cancelled
  error             TEXT,
  prompt_tokens     INTEGER NOT NULL,
  cached_tokens     INTEGER NOT NULL,
  completion_tokens INTEGER NOT NULL,        -- of all answers
  total_ms          REAL NOT NULL
) STRICT;
CREATE INDEX requests_by_time ON requests(time_ms);
CREATE TABLE answers (
  request        INTEGER NOT NULL REFERENCES requests(number),
  choice         INTEGER NOT NULL,           -- from 0
  text           TEXT NOT NULL,
  reasoning      TEXT,
  tool_calls     TEXT,                       -- JSON, in the form of OpenAI's message.tool_calls
  finish         TEXT,                       -- stop, length, tool_calls, cancelled; NULL: the request failed before
  tokens         INTEGER NOT NULL,
  first_token_ms REAL,                       -- NULL: there was none
  answer_ms      REAL,                       -- NULL: it did not end
  PRIMARY KEY (request, choice)
) STRICT;
CREATE TRIGGER answers_go_with_their_request AFTER DELETE ON requests
BEGIN
  DELETE FROM answers WHERE request = old.number;
END;
CREATE VIEW log AS                           -- a row an answer
  SELECT requests.*, answers.choice, answers.text, answers.reasoning, answers.tool_calls, answers.finish,
         answers.tokens, answers.first_token_ms, answers.answer_ms
  FROM requests JOIN answers ON answers.request = requests.number;
)sql";

}  // namespace thimble
