//! Cookies of a request and of a response (RFC 6265): found by name, taken out, made, and read.

use http::header::{COOKIE, Entry, HeaderMap, HeaderValue, SET_COOKIE};
use lb_core::sessions::{SameSite, SealedCookie};
use std::fmt::Write as _;
use std::time::Duration;
use time::{Date, Month, UtcDateTime};

/// The values of a request's cookies of this name, in order (RFC 6265, section 5.4), without quotes that may be around
/// them.
pub(crate) fn values<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let fields = headers.get_all(COOKIE).iter();
    fields.flat_map(|field| pairs(field.as_bytes())).filter_map(|pair| value(pair, name))
}

/// The first of [`values`].
pub(crate) fn first<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let fields = headers.get_all(COOKIE).iter();
    fields.flat_map(|field| pairs(field.as_bytes())).find_map(|pair| value(pair, name))
}

/// Takes all cookies of this name out of a request. What is left stays as it was sent.
pub(crate) fn remove(headers: &mut HeaderMap, name: &str) {
    if values(headers, name).next().is_none() {
        return;
    }
    let Entry::Occupied(entry) = headers.entry(COOKIE) else { return };
    let fields: Vec<HeaderValue> = entry.remove_entry_mult().1.collect();
    for field in fields {
        let is_of_another_name = |pair: &&[u8]| value(pair, name).is_none() && !pair.is_empty();
        let kept = pairs(field.as_bytes()).filter(is_of_another_name).collect::<Vec<_>>().join(&b"; "[..]);
        if !kept.is_empty() {
            let kept = HeaderValue::from_bytes(&kept).expect("a part of a value that came as one");
            headers.append(COOKIE, kept);
        }
    }
}

fn pairs(field: &[u8]) -> impl Iterator<Item = &[u8]> {
    field.split(|byte| *byte == b';').map(<[u8]>::trim_ascii)
}

/// The value of a cookie of this name.
fn value<'a>(pair: &'a [u8], name: &str) -> Option<&'a [u8]> {
    Some(unquoted(pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?))
}

fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value)
}

/// `Set-Cookie` for a cookie of ours. `value` is base64url, which needs no quotes; `max_age` is what is left of its
/// life. `None` where a configured name or path is no text for a header.
pub(crate) fn set_cookie(
    cookie: &SealedCookie,
    value: &str,
    max_age: Duration,
    is_secure: bool,
) -> Option<HeaderValue> {
    let mut text = format!("{}={value}; Path={}", cookie.name, cookie.path);
    if cookie.is_permanent {
        write!(text, "; Max-Age={}", max_age.as_secs()).ok()?;
    }
    text.push_str(match cookie.same_site {
        SameSite::Strict => "; SameSite=Strict",
        SameSite::Lax => "; SameSite=Lax",
        SameSite::None => "; SameSite=None",
    });
    if is_secure {
        text.push_str("; Secure");
    }
    if cookie.http_only {
        text.push_str("; HttpOnly");
    }
    let mut value = HeaderValue::try_from(text).ok()?;
    // Who has it is taken for the client: HPACK does not index it, and logs do not show it.
    value.set_sensitive(true);
    Some(value)
}

/// What a response does to the application's cookie of this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Learnt<'a> {
    /// It has this value from now on.
    Is(&'a [u8]),
    /// It ends: it has expired, or it is empty.
    Ends,
}

/// What a response says of the cookie of this name; where it says several things, the last, as browsers do. `now` is since
/// 1970.
pub(crate) fn learnt<'a>(headers: &'a HeaderMap, name: &str, now: Duration) -> Option<Learnt<'a>> {
    let fields = headers.get_all(SET_COOKIE).iter();
    fields.filter_map(|field| read(field.as_bytes(), name, now)).next_back()
}

fn read<'a>(field: &'a [u8], name: &str, now: Duration) -> Option<Learnt<'a>> {
    let mut parts = pairs(field);
    let value = value(parts.next()?, name)?;
    let (mut max_age_is_over, mut is_past) = (None, false);
    for attribute in parts {
        let at = attribute.iter().position(|byte| *byte == b'=').unwrap_or(attribute.len());
        let (key, text) = attribute.split_at(at);
        let text = str::from_utf8(text.get(1..).unwrap_or_default()).unwrap_or_default();
        if key.eq_ignore_ascii_case(b"max-age") {
            // As section 5.2.2 has it: what is not a number is as if it was not there.
            let digits = text.trim().strip_prefix('-').unwrap_or(text.trim());
            if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
                let is_zero = digits.bytes().all(|byte| byte == b'0');
                max_age_is_over = Some(is_zero || text.trim().starts_with('-'));
            }
        } else if key.eq_ignore_ascii_case(b"expires") {
            is_past = date(text).is_some_and(|date| date <= now);
        }
    }
    let ends = value.is_empty() || max_age_is_over.unwrap_or(is_past);
    Some(if ends { Learnt::Ends } else { Learnt::Is(value) })
}

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

/// A date as browsers read it (RFC 6265, section 5.1.1), since 1970; before that, 0. `None` for what is none.
fn date(text: &str) -> Option<Duration> {
    let (mut time, mut day, mut month, mut year) = (None, None, None, None);
    let is_delimiter = |c: char| !(c.is_ascii_alphanumeric() || c == ':' || u32::from(c) >= 0x7f);
    for token in text.split(is_delimiter).filter(|token| !token.is_empty()) {
        if time.is_none() && token.contains(':') {
            time = Some(of_day(token)?);
        } else if day.is_none() && leading(token, 1..=2).is_some() {
            day = leading(token, 1..=2);
        } else if month.is_none() && of_month(token).is_some() {
            month = of_month(token);
        } else if year.is_none() {
            year = leading(token, 2..=4);
        }
    }
    let (seconds, day, month) = (time?, day?, month?);
    let year = match year? {
        year @ 0..=69 => year + 2000,
        year @ 70..=99 => year + 1900,
        year => year,
    };
    if !(1..=31).contains(&day) || year < 1601 {
        return None;
    }
    // From the month's first day on, since some write a 31st where there is none.
    let first = Date::from_calendar_date(i32::try_from(year).ok()?, month, 1).ok()?;
    let days = (first - UtcDateTime::UNIX_EPOCH.date()).whole_days() + i64::from(day) - 1;
    Some(Duration::from_secs(u64::try_from(days * 86_400 + i64::from(seconds)).unwrap_or(0)))
}

/// Seconds of `hh:mm:ss`.
fn of_day(token: &str) -> Option<u32> {
    let mut fields = token.splitn(3, ':').map(|field| leading(field, 1..=2));
    let (h, m, s) = (fields.next()??, fields.next()??, fields.next()??);
    (h < 24 && m < 60 && s < 60).then_some(h * 3600 + m * 60 + s)
}

/// The number that a token begins with, where it has that many digits.
fn leading(token: &str, digits: std::ops::RangeInclusive<usize>) -> Option<u32> {
    let count = token.bytes().take_while(u8::is_ascii_digit).count();
    digits.contains(&count).then(|| token[..count].parse().ok())?
}

fn of_month(token: &str) -> Option<Month> {
    let begin = token.get(..3)?.to_ascii_lowercase();
    let at = MONTHS.iter().position(|month| *month == begin)?;
    Month::try_from(u8::try_from(at + 1).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Duration = Duration::from_secs(1_795_000_000);

    fn request(fields: &[&str]) -> HeaderMap {
        fields.iter().map(|field| (COOKIE, HeaderValue::from_str(field).expect("a value"))).collect()
    }

    fn without(fields: &[&str], name: &str) -> Vec<String> {
        let mut headers = HeaderMap::new();
        headers.extend(request(fields));
        remove(&mut headers, name);
        headers.get_all(COOKIE).iter().map(|field| field.to_str().expect("text").to_owned()).collect()
    }

    #[test]
    fn our_cookie_is_taken_out_and_the_others_stay_as_they_were() {
        assert_eq!(without(&["a=1; LB=x; b=\"2\""], "LB"), ["a=1; b=\"2\""]);
        assert_eq!(without(&["LB=x"], "LB"), [""; 0], "an empty header is none");
        assert_eq!(without(&["LB=x; LB=y", "a=1", "LB=z;c=3"], "LB"), ["a=1", "c=3"]);
        assert_eq!(without(&["a=1;  b=LB=x;LBX=1;xLB=2"], "LB"), ["a=1;  b=LB=x;LBX=1;xLB=2"]);
        assert_eq!(without(&[], "LB"), [""; 0]);
    }

    #[test]
    fn values_are_found_in_every_field_and_without_quotes() {
        let mut headers = HeaderMap::new();
        for field in ["a=1; LB=x", "LB=\"y\"; LB=", "LB"] {
            headers.append(COOKIE, HeaderValue::from_static(field));
        }
        assert_eq!(values(&headers, "LB").collect::<Vec<_>>(), [&b"x"[..], b"y", b""]);
    }

    #[test]
    fn a_cookie_is_set_as_configured() {
        let cookie = SealedCookie {
            name: "LB_SESSION".into(),
            path: "/shop".into(),
            same_site: SameSite::Lax,
            secure: None,
            http_only: true,
            lifetime: Duration::from_secs(3600),
            is_permanent: true,
        };
        let set = |cookie: &SealedCookie, secure| {
            let value = set_cookie(cookie, "abc-_", Duration::from_secs(90), secure).expect("a value");
            assert!(value.is_sensitive());
            value.to_str().expect("text").to_owned()
        };
        let want = "LB_SESSION=abc-_; Path=/shop; Max-Age=90; SameSite=Lax; Secure; HttpOnly";
        assert_eq!(set(&cookie, true), want);
        let session = SealedCookie { is_permanent: false, http_only: false, ..cookie.clone() };
        assert_eq!(set(&session, false), "LB_SESSION=abc-_; Path=/shop; SameSite=Lax");
        let broken = SealedCookie { path: "/\n".into(), ..cookie };
        assert_eq!(set_cookie(&broken, "a", Duration::ZERO, false), None);
    }

    #[test]
    fn the_application_s_cookie_is_learnt_and_forgotten_as_a_browser_would() {
        let cases = [
            ("JSESSIONID=abc; Path=/; HttpOnly", Some(Learnt::Is(b"abc"))),
            ("JSESSIONID=\"abc\"", Some(Learnt::Is(b"abc"))),
            ("JSESSIONIDX=abc", None),
            ("jsessionid=abc", None),
            ("JSESSIONID", None),
            ("JSESSIONID=; Path=/", Some(Learnt::Ends)),
            ("JSESSIONID=abc; max-age=0", Some(Learnt::Ends)),
            ("JSESSIONID=abc; Max-Age=-1", Some(Learnt::Ends)),
            ("JSESSIONID=abc; Max-Age=10; Expires=Thu, 01 Jan 1970 00:00:00 GMT", Some(Learnt::Is(b"abc"))),
            ("JSESSIONID=abc; Max-Age=ten", Some(Learnt::Is(b"abc"))),
            ("JSESSIONID=abc; Expires=Thu, 01-Jan-1970 00:00:10 GMT", Some(Learnt::Ends)),
            ("JSESSIONID=abc; expires=Wed, 21 Oct 2099 07:28:00 GMT", Some(Learnt::Is(b"abc"))),
            ("JSESSIONID=abc; Expires=whenever", Some(Learnt::Is(b"abc"))),
        ];
        for (field, want) in cases {
            let mut headers = HeaderMap::new();
            headers.append(SET_COOKIE, HeaderValue::from_static("other=1"));
            headers.append(SET_COOKIE, HeaderValue::from_static(field));
            assert_eq!(learnt(&headers, "JSESSIONID", NOW), want, "{field}");
        }
    }

    #[test]
    fn of_several_the_last_counts() {
        let mut headers = HeaderMap::new();
        for field in ["s=1; Max-Age=0", "s=2"] {
            headers.append(SET_COOKIE, HeaderValue::from_static(field));
        }
        assert_eq!(learnt(&headers, "s", NOW), Some(Learnt::Is(b"2")));
    }

    #[test]
    fn dates_are_read_in_all_the_forms_that_servers_send() {
        let want = Some(Duration::from_secs(784_111_777));
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "Sun, 06-nov-1994 8:49:37 GMT",
        ] {
            assert_eq!(date(text), want, "{text}");
        }
        assert_eq!(date("Thu, 29 Feb 2024 00:00:00 GMT"), Some(Duration::from_secs(1_709_164_800)));
        assert_eq!(date("Mon, 01 Jan 1900 00:00:00 GMT"), Some(Duration::ZERO));
        for text in ["", "06 Nov 1994", "Sun, 32 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 24:00:00 GMT"] {
            assert_eq!(date(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_in_the_headers_nothing_panics(text in "[ -~\u{80}-\u{ff}]{0,200}", name in "[a-z=;]{0,4}") {
            let Ok(value) = HeaderValue::from_str(&text) else { return Ok(()) };
            let mut headers = HeaderMap::from_iter([(COOKIE, value.clone()), (SET_COOKIE, value)]);
            let _ = learnt(&headers, &name, NOW);
            let _ = date(&text);
            remove(&mut headers, &name);
            prop_assert_eq!(values(&headers, &name).count(), 0);
        }
    }
}
