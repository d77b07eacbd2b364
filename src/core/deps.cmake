target_link_libraries(thimble_core PUBLIC Threads::Threads fmt::fmt OpenSSL::Crypto)
