//! Settings by the names people already have: properties files in the spellings of librdkafka and Java.
