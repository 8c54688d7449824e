use super::*;
use crate::message::{BodyLength, Upgrade};
use http::header::COOKIE;
use http::{HeaderName, Method};
use lb_core::sessions::{SameSite, SessionPolicy};
use weir_proto::limits::KEY_BYTES;

use crate::ring::Ring;

const HOUR: Duration = Duration::from_secs(3600);
const A: Choice = Choice { set: 1, backend: 10 };
const B: Choice = Choice { set: 1, backend: 20 };
const OTHER: Choice = Choice { set: 2, backend: 30 };

fn keeping() -> Keeping {
    Keeping { sealer: Arc::new(Sealer::new().expect("randomness")), store: None }
}

fn ring(keys: [u8; 3]) -> Ring {
    let [previous, current, next] = keys.map(|key| [key; KEY_BYTES]);
    Ring::new(&previous, &current, &next).expect("of the length")
}

fn sessions(pool: &str, source: SessionSource) -> Sessions {
    let is_sealed = matches!(source, SessionSource::Sealed(_));
    let policy = SessionPolicy { source, pool: pool.into(), idle_timeout: HOUR, sessions_max: 1000 };
    let table = (!is_sealed).then(|| Arc::new(SessionTable::new(1000, HOUR)));
    Sessions { policy, table }
}

fn by_cookie(pool: &str) -> Sessions {
    let cookie = SealedCookie {
        name: "LB".into(),
        path: "/".into(),
        same_site: SameSite::Lax,
        secure: None,
        http_only: true,
        lifetime: HOUR,
        is_permanent: true,
    };
    sessions(pool, SessionSource::Sealed(cookie))
}

fn at(seconds: u64) -> Moment {
    let since_start = Duration::from_secs(seconds);
    Moment { of_day: Duration::from_secs(1_800_000_000) + since_start, since_start }
}

fn head(fields: &[(&'static str, &str)]) -> RequestHead {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value"));
    }
    RequestHead {
        version: http::Version::HTTP_11,
        method: Method::GET,
        authority: None,
        target: "/".parse().expect("a target"),
        headers,
        body: BodyLength::Empty,
        upgrade: Upgrade::No,
    }
}

fn peer(scheme: Scheme) -> Peer {
    Peer { scheme, ..Peer::at(80, [192, 0, 2, 1]) }
}

/// One request of a client that keeps cookies: what it sends, where it goes, and what comes back.
#[derive(Debug, PartialEq, Eq)]
struct Done {
    choices: Vec<Choice>,
    refusal: Option<Refusal>,
    result: Option<SessionResult>,
    /// The pair of the last `Set-Cookie`.
    set: Option<String>,
}

fn request(keeping: &Keeping, sessions: &Sessions, cookies: &str, to: Choice, now: Moment) -> Done {
    answered(keeping, sessions, cookies, (to, &[]), now)
}

fn answered(
    keeping: &Keeping,
    sessions: &Sessions,
    cookies: &str,
    (to, sets): (Choice, &[&'static str]),
    now: Moment,
) -> Done {
    let mut head = head(&[("cookie", cookies)]);
    let seen = keeping.seen(sessions, &mut head, &peer(Scheme::Http), now);
    let (choices, refusal) = (seen.choices().to_vec(), seen.refusal());
    let mut headers: HeaderMap = sets.iter().map(|set| (SET_COOKIE, HeaderValue::from_static(set))).collect();
    let result = seen.keep(to, &mut headers);
    let last = headers.get_all(SET_COOKIE).iter().next_back().map(|value| value.to_str().expect("text"));
    let set = last.and_then(|text| text.split(';').next()).map(str::to_owned);
    Done { choices, refusal, result, set }
}

#[test]
fn a_session_begins_stays_and_fails_over_by_its_cookie() {
    let (keeping, shop) = (keeping(), by_cookie("ns/shop"));
    let first = request(&keeping, &shop, "a=1", A, at(0));
    assert_eq!((first.choices, first.result), (vec![], Some(SessionResult::New)));
    let cookie = first.set.expect("a cookie");
    let second = request(&keeping, &shop, &cookie, A, at(1));
    let kept = Done { choices: vec![A], refusal: None, result: Some(SessionResult::Kept), set: None };
    assert_eq!(second, kept, "nothing is set anew");
    let moved = request(&keeping, &shop, &cookie, B, at(2));
    assert_eq!((moved.choices, moved.result), (vec![A], Some(SessionResult::FailedOver)));
    let after = request(&keeping, &shop, &moved.set.expect("a cookie"), B, at(3));
    assert_eq!((after.choices, after.result), (vec![B], Some(SessionResult::Kept)));
}

#[test]
fn sets_of_one_pool_share_a_cookie() {
    let (keeping, shop) = (keeping(), by_cookie("ns/shop"));
    let first = request(&keeping, &shop, "", A, at(0)).set.expect("a cookie");
    let both = request(&keeping, &shop, &first, OTHER, at(1));
    assert_eq!(both.result, Some(SessionResult::New), "in this set");
    let seen = request(&keeping, &shop, &both.set.expect("a cookie"), A, at(2));
    assert_eq!((seen.choices, seen.result), (vec![OTHER, A], Some(SessionResult::Kept)));
}

#[test]
fn a_backend_never_sees_our_cookie() {
    let (keeping, shop) = (keeping(), by_cookie("ns/shop"));
    for (sent, left) in [("LB=forged; a=1; LB=again", Some("a=1")), ("LB=x", None), ("a=LB", Some("a=LB"))] {
        let mut head = head(&[("cookie", sent)]);
        let _ = keeping.seen(&shop, &mut head, &peer(Scheme::Http), at(0));
        assert_eq!(head.headers.get(COOKIE).map(|value| value.to_str().expect("text")), left, "{sent}");
    }
}

#[test]
fn what_is_no_cookie_of_this_pool_is_refused_by_its_name_and_replaced() {
    let (keeping, shop) = (keeping(), by_cookie("ns/shop"));
    let foreign = request(&keeping, &by_cookie("ns/blog"), "", A, at(0)).set.expect("a cookie");
    let good = request(&keeping, &shop, "", A, at(0)).set.expect("a cookie");
    let elsewhere = request(&self::keeping(), &shop, "", A, at(0)).set.expect("a cookie");
    let mut touched = good.clone().into_bytes();
    touched[40] ^= 1;
    let touched = String::from_utf8(touched).expect("ASCII");
    let oversized = format!("LB={}", "A".repeat(seal::VALUE_BYTES_MAX + 1));
    let cases = [
        (foreign.as_str(), at(0), Refusal::Foreign),
        (&touched, at(0), Refusal::Forged),
        ("LB=backend-1", at(0), Refusal::Forged),
        (&elsewhere, at(0), Refusal::Expired),
        (&good, at(3601), Refusal::Expired),
        (&oversized, at(0), Refusal::Oversized),
    ];
    for (cookie, now, refusal) in cases {
        let done = request(&keeping, &shop, cookie, A, now);
        assert_eq!((done.refusal, done.result), (Some(refusal), Some(SessionResult::New)), "{cookie}");
        let next = request(&keeping, &shop, &done.set.expect("a new one"), A, now);
        assert_eq!((next.refusal, next.result), (None, Some(SessionResult::Kept)), "{cookie}");
    }
    assert_eq!(request(&keeping, &shop, &good, A, at(3600)).refusal, None, "at the limit");
}

#[test]
fn of_several_cookies_of_our_name_the_first_that_opens_counts() {
    let (keeping, shop) = (keeping(), by_cookie("ns/shop"));
    let good = request(&keeping, &shop, "", A, at(0)).set.expect("a cookie");
    let done = request(&keeping, &shop, &format!("LB=forged; {good}"), A, at(1));
    assert_eq!((done.refusal, done.result), (None, Some(SessionResult::Kept)));
    let after = |count| format!("{}{good}", "LB=forged; ".repeat(count));
    assert_eq!(request(&keeping, &shop, &after(COOKIES_MAX - 1), A, at(1)).refusal, None);
    assert_eq!(request(&keeping, &shop, &after(COOKIES_MAX), A, at(1)).refusal, Some(Refusal::Forged));
}

#[test]
fn a_cookie_of_an_older_key_is_sealed_again_and_lives_no_longer_for_it() {
    let (keeping, shop) = (keeping(), by_cookie("ns/shop"));
    keeping.sealer.use_ring(&ring([1, 2, 3]));
    let first = request(&keeping, &shop, "", A, at(0)).set.expect("a cookie");
    keeping.sealer.use_ring(&ring([2, 3, 4]));
    let again = request(&keeping, &shop, &first, A, at(1000));
    assert_eq!(again.result, Some(SessionResult::Kept));
    let again = again.set.expect("sealed with the current key");
    keeping.sealer.use_ring(&ring([3, 4, 5]));
    assert_eq!(request(&keeping, &shop, &again, A, at(3600)).result, Some(SessionResult::Kept));
    assert_eq!(request(&keeping, &shop, &again, A, at(3601)).refusal, Some(Refusal::Expired));
}

#[test]
fn the_cookie_says_how_long_it_lives_and_is_secure_where_the_request_was() {
    let (keeping, shop) = (keeping(), by_cookie("ns/shop"));
    let set = |scheme, cookies: &str, to, now| {
        let mut head = head(&[("cookie", cookies)]);
        let mut headers = HeaderMap::new();
        keeping.seen(&shop, &mut head, &peer(scheme), now).keep(to, &mut headers);
        headers.get(SET_COOKIE).expect("a cookie").to_str().expect("text").to_owned()
    };
    let plain = set(Scheme::Http, "", A, at(0));
    assert!(plain.ends_with("; Path=/; Max-Age=3600; SameSite=Lax; HttpOnly"), "{plain}");
    let moved = set(Scheme::Https, plain.split(';').next().expect("a pair"), B, at(600));
    assert!(moved.ends_with("; Path=/; Max-Age=3000; SameSite=Lax; Secure; HttpOnly"), "{moved}");
}

#[test]
fn a_table_knows_clients_by_address_and_by_header() {
    let keeping = keeping();
    for source in [SessionSource::SourceIp, SessionSource::Header("x-user".into())] {
        let shop = sessions("ns/shop", source);
        let go = |user, to| {
            let mut head = head(&[("x-user", user)]);
            let seen = keeping.seen(&shop, &mut head, &peer(Scheme::Http), at(0));
            assert!(seen.key().is_some());
            let choices = seen.choices().to_vec();
            (choices, seen.keep(to, &mut HeaderMap::new()))
        };
        assert_eq!(go("anna", A), (vec![], Some(SessionResult::New)));
        assert_eq!(go("anna", A), (vec![A], Some(SessionResult::Kept)));
        assert_eq!(go("anna", B), (vec![A], Some(SessionResult::FailedOver)));
        assert_eq!(go("anna", OTHER), (vec![B], Some(SessionResult::New)), "in another set");
    }
}

#[test]
fn who_sends_nothing_to_be_known_by_has_no_session() {
    let (keeping, shop) = (keeping(), sessions("ns/shop", SessionSource::Header("x-user".into())));
    for fields in [&[][..], &[("x-user", "")]] {
        let mut head = head(fields);
        let seen = keeping.seen(&shop, &mut head, &peer(Scheme::Http), at(0));
        assert_eq!((seen.key(), seen.choices()), (None, &[][..]));
        assert_eq!(seen.keep(A, &mut HeaderMap::new()), None);
    }
    let bare = Sessions { table: None, ..sessions("ns/shop", SessionSource::SourceIp) };
    assert_eq!(request(&keeping, &bare, "", A, at(0)).result, None, "a table that is not there");
}

#[test]
fn a_session_is_learnt_from_the_application_s_cookie_until_it_ends() {
    let (keeping, shop) = (keeping(), sessions("ns/shop", SessionSource::Learnt("JSESSIONID".into())));
    let table = shop.table.as_ref().expect("a table");
    let made_up = request(&keeping, &shop, "JSESSIONID=made-up", A, at(0));
    assert_eq!((made_up.result, table.live()), (None, 0), "a client teaches nothing");
    let login = answered(&keeping, &shop, "", (A, &["JSESSIONID=abc; Path=/"]), at(0));
    assert_eq!((login.choices, login.result, table.live()), (vec![], Some(SessionResult::New), 1));
    let next = request(&keeping, &shop, "JSESSIONID=abc", A, at(1));
    assert_eq!((next.choices, next.result), (vec![A], Some(SessionResult::Kept)));
    let moved = request(&keeping, &shop, "JSESSIONID=abc", B, at(1));
    assert_eq!((moved.choices, moved.result), (vec![A], Some(SessionResult::FailedOver)));
    let logout = answered(&keeping, &shop, "JSESSIONID=abc", (B, &["JSESSIONID=; Max-Age=0"]), at(2));
    assert_eq!((logout.choices, logout.result, table.live()), (vec![B], Some(SessionResult::Kept), 0));
    assert_eq!(request(&keeping, &shop, "JSESSIONID=abc", A, at(3)).choices, []);
}

#[test]
fn a_table_forgets_who_was_away_for_the_idle_timeout() {
    let (keeping, shop) = (keeping(), sessions("ns/shop", SessionSource::SourceIp));
    request(&keeping, &shop, "", A, at(0));
    assert_eq!(request(&keeping, &shop, "", A, at(3600)).choices, [A]);
    assert_eq!(request(&keeping, &shop, "", A, at(7201)).choices, []);
}

/// A proxy of its own, with its own table, that shares this store.
async fn proxy(url: &str, source: &SessionSource) -> (Keeping, Sessions) {
    let store = store::tests::open(url);
    store::tests::until("the store is up", async || store.is_up()).await;
    (Keeping { store: Some(store), ..keeping() }, sessions("ns/shop", source.clone()))
}

/// What a proxy that knows nothing of a session finds of it.
async fn recalled((keeping, shop): &(Keeping, Sessions), cookies: &str, now: Moment) -> Vec<Choice> {
    let mut head = head(&[("cookie", cookies)]);
    let mut seen = keeping.seen(shop, &mut head, &peer(Scheme::Http), now);
    seen.recall().await;
    seen.choices().to_vec()
}

#[tokio::test]
async fn proxies_that_share_a_store_share_sessions() {
    let port = store::tests::free_port();
    let _server = store::tests::Server::start(port, &[]);
    let url = format!("redis://127.0.0.1:{port}");
    let learnt = SessionSource::Learnt("sid".into());
    let (one, two) = (proxy(&url, &learnt).await, proxy(&url, &learnt).await);
    answered(&one.0, &one.1, "", (A, &["sid=abc"]), at(0));
    store::tests::until("the other proxy knows it", async || recalled(&two, "sid=abc", at(0)).await == [A])
        .await;
    let table = two.1.table.as_ref().expect("a table");
    assert_eq!(table.live(), 1, "it need not ask again");
    assert_eq!(recalled(&two, "sid=abd", at(0)).await, []);
    answered(&two.0, &two.1, "sid=abc", (A, &["sid=; Max-Age=0"]), at(1));
    let third = proxy(&url, &learnt).await;
    store::tests::until("it is gone", async || recalled(&third, "sid=abc", at(1)).await.is_empty()).await;
}

#[tokio::test]
async fn a_session_moves_for_all_proxies_and_without_a_store_nobody_is_asked() {
    let port = store::tests::free_port();
    let _server = store::tests::Server::start(port, &[]);
    let url = format!("redis://127.0.0.1:{port}");
    let one = proxy(&url, &SessionSource::SourceIp).await;
    for to in [A, B] {
        request(&one.0, &one.1, "", to, at(0));
        let fresh = proxy(&url, &SessionSource::SourceIp).await;
        store::tests::until("a new proxy knows it", async || recalled(&fresh, "", at(0)).await == [to]).await;
    }
    let alone = (keeping(), sessions("ns/shop", SessionSource::SourceIp));
    assert_eq!(recalled(&alone, "", at(0)).await, []);
    let by_cookie = (one.0, by_cookie("ns/shop"));
    assert_eq!(recalled(&by_cookie, "", at(0)).await, [], "a cookie says it all");
}
