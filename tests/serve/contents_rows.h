#pragma once

// Reads SQLite files as any other program does.

#include <gtest/gtest.h>
#include <sqlite3.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

namespace thimble::test {

// A connection of its own; what it can't do is a failure of the test.
class Sqlite {
 public:
  explicit Sqlite(const std::filesystem::path& file, int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE) {
    if (sqlite3_open_v2(file.c_str(), &database_, flags, nullptr) != SQLITE_OK)
      ADD_FAILURE() << file << ": " << sqlite3_errmsg(database_);
    sqlite3_busy_timeout(database_, 10'000);
  }
  ~Sqlite() { sqlite3_close(database_); }
  Sqlite(const Sqlite&) = delete;
  Sqlite& operator=(const Sqlite&) = delete;

  void run(const std::string& sql) {
    if (sqlite3_exec(database_, sql.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK)
      ADD_FAILURE() << sql << ": " << sqlite3_errmsg(database_);
  }

  // An object a row, by column.
  nlohmann::ordered_json rows(const std::string& sql) {
    nlohmann::ordered_json out = nlohmann::ordered_json::array();
    sqlite3_stmt* statement = nullptr;
    if (sqlite3_prepare_v2(database_, sql.c_str(), -1, &statement, nullptr) != SQLITE_OK)
      ADD_FAILURE() << sql << ": " << sqlite3_errmsg(database_);
    while (sqlite3_step(statement) == SQLITE_ROW) {
      nlohmann::ordered_json row;
      for (int i = 0; i < sqlite3_column_count(statement); ++i) {
        nlohmann::ordered_json& value = row[sqlite3_column_name(statement, i)];
        switch (sqlite3_column_type(statement, i)) {
          case SQLITE_INTEGER: value = sqlite3_column_int64(statement, i); break;
          case SQLITE_FLOAT: value = sqlite3_column_double(statement, i); break;
          case SQLITE_NULL: break;
          default:
            value = std::string(static_cast<const char*>(sqlite3_column_blob(statement, i)),
                                static_cast<size_t>(sqlite3_column_bytes(statement, i)));
        }
      }
      out.push_back(std::move(row));
    }
    sqlite3_finalize(statement);
    return out;
  }

 private:
  sqlite3* database_ = nullptr;
};

inline nlohmann::ordered_json rows_of(const std::filesystem::path& file, const std::string& sql) {
  return Sqlite(file, SQLITE_OPEN_READWRITE).rows(sql);
}

}  // namespace thimble::test
