//! On a real API server, with kubectl.

mod control_plane;
mod definition;
mod source;
mod status;
mod users_path;
