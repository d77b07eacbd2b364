target_link_libraries(thimble_eval PUBLIC fmt::fmt)
