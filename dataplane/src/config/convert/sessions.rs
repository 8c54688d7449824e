//! How sessions are kept, from the wire.

use super::{Rejection, duration, token, within};
use lb_core::sessions::{SameSite, SealedCookie, SessionPolicy, SessionSource};
use std::sync::Arc;
use std::time::Duration;
use weir_proto::limits::SESSION_LIFETIME_MS;
use weir_proto::push;
use weir_proto::push::session_persistence::Source;

const SESSIONS: (u32, u32) = (1_000, 4_000_000);
const COOKIE_NAME_BYTES_MAX: usize = 64;
const HEADER_NAME_BYTES_MAX: usize = 256;
const COOKIE_PATH_BYTES_MAX: usize = 256;

/// How a rule of this pool keeps sessions.
pub(super) fn read(
    field: &str,
    wire: &push::SessionPersistence,
    pool: &Arc<str>,
) -> Result<SessionPolicy, Rejection> {
    let name = |name: &str, bytes_max| token(field, ".sessionName", name, bytes_max);
    let source = match &wire.source {
        Some(Source::Sealed(cookie)) => {
            let source = SessionSource::Sealed(sealed(field, cookie)?);
            return Ok(policy(source, pool, Duration::ZERO, 0));
        }
        Some(Source::SourceIp(_)) => SessionSource::SourceIp,
        Some(Source::Header(header)) => {
            SessionSource::Header(name(&header.to_ascii_lowercase(), HEADER_NAME_BYTES_MAX)?)
        }
        Some(Source::LearntCookie(cookie)) => SessionSource::Learnt(name(cookie, COOKIE_NAME_BYTES_MAX)?),
        None => {
            let reason = "the type is not known to this proxy: upgrade the proxies, or choose another";
            return Err(Rejection::new(format!("{field}.type"), reason));
        }
    };
    let idle_timeout = duration(field, ".idleTimeout", wire.idle_timeout_ms, SESSION_LIFETIME_MS)?;
    let sessions_max = within(field, ".maxSessions", wire.sessions_max, SESSIONS)?;
    Ok(policy(source, pool, idle_timeout, sessions_max))
}

fn policy(
    source: SessionSource,
    pool: &Arc<str>,
    idle_timeout: Duration,
    sessions_max: u32,
) -> SessionPolicy {
    SessionPolicy { source, pool: Arc::clone(pool), idle_timeout, sessions_max }
}

fn sealed(field: &str, wire: &push::SealedCookie) -> Result<SealedCookie, Rejection> {
    let unknown = |rest: &str, number: i32| {
        let reason =
            format!("{number} is not known to this proxy: upgrade the proxies, or choose another value");
        Rejection::new(format!("{field}.cookieConfig.{rest}"), reason)
    };
    let same_site = match wire.same_site() {
        push::SameSite::Strict => SameSite::Strict,
        push::SameSite::Lax => SameSite::Lax,
        push::SameSite::None => SameSite::None,
        push::SameSite::Unspecified => return Err(unknown("sameSite", wire.same_site)),
    };
    let secure = match wire.security() {
        push::CookieSecurity::Auto => None,
        push::CookieSecurity::Always => Some(true),
        push::CookieSecurity::Never => Some(false),
        push::CookieSecurity::Unspecified => return Err(unknown("secure", wire.security)),
    };
    if same_site == SameSite::None && secure == Some(false) {
        let reason = "browsers drop a cookie with sameSite None that is not secure: use Auto or Always";
        return Err(Rejection::new(format!("{field}.cookieConfig.secure"), reason));
    }
    // A semicolon would begin another attribute.
    let allowed = |byte: u8| byte != b';' && (byte == b' ' || byte.is_ascii_graphic());
    let is_path = wire.path.starts_with('/')
        && wire.path.len() <= COOKIE_PATH_BYTES_MAX
        && wire.path.bytes().all(allowed);
    if !is_path {
        let reason = format!(
            "{:?} is not the path of a cookie: start it with a slash, without ; and control characters, in at most \
             {COOKIE_PATH_BYTES_MAX} bytes",
            wire.path
        );
        return Err(Rejection::new(format!("{field}.cookieConfig.path"), reason));
    }
    Ok(SealedCookie {
        name: token(field, ".sessionName", &wire.name, COOKIE_NAME_BYTES_MAX)?,
        path: wire.path.as_str().into(),
        same_site,
        secure,
        http_only: wire.http_only,
        lifetime: duration(field, ".absoluteTimeout", wire.lifetime_ms, SESSION_LIFETIME_MS)?,
        is_permanent: wire.permanent,
    })
}
