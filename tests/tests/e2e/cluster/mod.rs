//! On a real API server, with kubectl.

mod control_plane;
mod definition;
mod source;
mod users_path;
