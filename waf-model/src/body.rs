//! Bodies to named values: urlencoded, JSON, XML and multipart, with hard limits.
