//! How a rule keeps sessions.

use super::super::check::{Check, quoted};
use weir_crds::Duration;
use weir_crds::pool as spec;
use weir_proto::limits::SESSION_LIFETIME_MS;
use weir_proto::push;
use weir_proto::push::session_persistence::Source;

/// Where nothing is said.
const LIFETIME: Duration = Duration::from_secs(3_600);
/// Where nothing is said.
const SESSIONS: i32 = 100_000;

/// `None` where there are to be no sessions, and where what is said is wrong.
pub(in super::super) fn sessions(
    field: &str,
    own: &spec::SessionPersistence,
    check: &mut Check,
) -> Option<push::SessionPersistence> {
    let kind = own.kind;
    let name = name(field, own, check);
    refuse_others(field, own, check);
    let source = match kind {
        spec::SessionType::None => return None,
        spec::SessionType::Cookie => {
            let name = name.unwrap_or_else(|| spec::COOKIE_NAME.to_owned());
            let source = Some(Source::Sealed(sealed(field, name, own, check)));
            return Some(push::SessionPersistence { source, ..push::SessionPersistence::default() });
        }
        spec::SessionType::SourceIp => Source::SourceIp(push::SourceIp {}),
        // Header fields are compared in lower case; cookies as they are.
        spec::SessionType::Header => Source::Header(name?.to_ascii_lowercase()),
        spec::SessionType::LearntCookie => Source::LearntCookie(name?),
    };
    let idle_timeout = own.idle_timeout.unwrap_or(LIFETIME);
    let sessions_max = own.max_sessions.unwrap_or(SESSIONS);
    Some(push::SessionPersistence {
        source: Some(source),
        idle_timeout_ms: check.within(&format!("{field}.idleTimeout"), idle_timeout, SESSION_LIFETIME_MS),
        sessions_max: check
            .between(&format!("{field}.maxSessions"), sessions_max, spec::SESSIONS_RANGE)
            .unwrap_or_default(),
    })
}

/// The name that is written, where the type has one.
fn name(field: &str, own: &spec::SessionPersistence, check: &mut Check) -> Option<String> {
    use spec::SessionType::{Cookie, Header, LearntCookie, None as Nothing, SourceIp};
    let field = format!("{field}.sessionName");
    match (own.kind, &own.session_name) {
        (Header | LearntCookie, None) => {
            let rule = "is missing: type Header or LearntCookie needs the name of which one";
            check.refuse(field, "", rule);
            None
        }
        (SourceIp | Nothing, Some(name)) => {
            let rule = "is for type Cookie, Header or LearntCookie only: remove it";
            check.refuse(field, quoted(name), rule);
            None
        }
        (Cookie | SourceIp | Nothing, None) => None,
        (Header, Some(name)) => {
            check.token(&field, name, spec::SESSION_NAME_BYTES_MAX);
            Some(name.clone())
        }
        (Cookie | LearntCookie, Some(name)) => {
            check.token(&field, name, spec::COOKIE_NAME_BYTES_MAX);
            Some(name.clone())
        }
    }
}

/// Fields that are there and not for this type.
fn refuse_others(field: &str, own: &spec::SessionPersistence, check: &mut Check) {
    use spec::SessionType::{Cookie, None as Nothing};
    let mut refuse = |name: &str, value: String, rule: &str| {
        check.refuse(format!("{field}.{name}"), value, rule);
    };
    if own.kind != Cookie {
        if let Some(timeout) = own.absolute_timeout {
            refuse(
                "absoluteTimeout",
                timeout.to_string(),
                "is for type Cookie only: remove it, or use idleTimeout",
            );
        }
        if own.cookie_config.is_some() {
            refuse("cookieConfig", String::new(), "is for type Cookie only: remove it");
        }
    }
    if matches!(own.kind, Cookie | Nothing) {
        if let Some(timeout) = own.idle_timeout {
            let rule = "is for type SourceIP, Header or LearntCookie only: remove it, or use absoluteTimeout";
            refuse("idleTimeout", timeout.to_string(), rule);
        }
        if let Some(count) = own.max_sessions {
            let rule = "is for type SourceIP, Header or LearntCookie only, where proxies remember sessions: remove it";
            refuse("maxSessions", count.to_string(), rule);
        }
    }
}

fn sealed(
    field: &str,
    name: String,
    own: &spec::SessionPersistence,
    check: &mut Check,
) -> push::SealedCookie {
    let config = own.cookie_config.clone().unwrap_or_default();
    check_prefix(field, &name, &config, check);
    let path_field = format!("{field}.cookieConfig.path");
    // A semicolon would begin another attribute.
    let allowed = |byte: u8| byte != b';' && (byte == b' ' || byte.is_ascii_graphic());
    let is_path = config.path.starts_with('/')
        && config.path.len() <= spec::COOKIE_PATH_BYTES_MAX
        && config.path.bytes().all(allowed);
    if !is_path {
        let rule = "is not the path of a cookie: start it with a slash, and use up to 256 visible ASCII characters and \
                    blanks without ;";
        check.refuse(path_field, quoted(&config.path), rule);
    }
    let secure = config.secure;
    if config.same_site == spec::SameSite::None && secure == spec::CookieSecurity::Never {
        let rule = "makes browsers drop a cookie with sameSite None: use Auto or Always, or another sameSite";
        check.refuse(format!("{field}.cookieConfig.secure"), "Never", rule);
    }
    let lifetime = own.absolute_timeout.unwrap_or(LIFETIME);
    push::SealedCookie {
        name,
        path: config.path,
        same_site: match config.same_site {
            spec::SameSite::Strict => push::SameSite::Strict,
            spec::SameSite::Lax => push::SameSite::Lax,
            spec::SameSite::None => push::SameSite::None,
        }
        .into(),
        security: match secure {
            spec::CookieSecurity::Auto => push::CookieSecurity::Auto,
            spec::CookieSecurity::Always => push::CookieSecurity::Always,
            spec::CookieSecurity::Never => push::CookieSecurity::Never,
        }
        .into(),
        http_only: config.http_only,
        lifetime_ms: check.within(&format!("{field}.absoluteTimeout"), lifetime, SESSION_LIFETIME_MS),
        permanent: config.lifetime_type == spec::CookieLifetime::Permanent,
    }
}

/// What browsers demand of a cookie by its name (RFC 6265bis, section 4.1.3), which they compare without case.
fn check_prefix(field: &str, name: &str, config: &spec::CookieConfig, check: &mut Check) {
    let name = name.to_ascii_lowercase();
    let is_host = name.starts_with("__host-");
    if (is_host || name.starts_with("__secure-")) && config.secure == spec::CookieSecurity::Never {
        let rule = "makes browsers drop a cookie whose name begins with __Secure- or __Host-: use Auto or Always, or another \
                    name";
        check.refuse(format!("{field}.cookieConfig.secure"), "Never", rule);
    }
    if is_host && config.path != "/" {
        let rule = "makes browsers drop a cookie whose name begins with __Host-: use path /, or another name";
        check.refuse(format!("{field}.cookieConfig.path"), quoted(&config.path), rule);
    }
}
