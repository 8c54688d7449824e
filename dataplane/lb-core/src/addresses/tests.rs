use super::*;
use crate::balance::Rng;
use std::net::{Ipv4Addr, Ipv6Addr};

fn net(text: &str) -> IpNet {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| net(text)).collect()
}

#[test]
fn the_longest_prefix_decides_whatever_the_order() {
    let mut networks =
        vec![(net("10.0.0.0/8"), 1), (net("10.1.0.0/16"), 2), (net("10.1.2.3/32"), 3), (net("::/0"), 6)];
    for _ in 0..networks.len() {
        networks.rotate_left(1);
        let table = IpTable::new(networks.clone());
        for (address, value) in [
            ("9.255.255.255", None),
            ("10.0.0.0", Some(1)),
            ("10.0.255.255", Some(1)),
            ("10.1.0.0", Some(2)),
            ("10.1.2.2", Some(2)),
            ("10.1.2.3", Some(3)),
            ("10.1.2.4", Some(2)),
            ("10.1.255.255", Some(2)),
            ("10.2.0.0", Some(1)),
            ("10.255.255.255", Some(1)),
            ("11.0.0.0", None),
            ("2001:db8::1", Some(6)),
            ("::", Some(6)),
            ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Some(6)),
            ("::ffff:10.1.2.3", Some(3)),
            ("::ffff:11.0.0.0", None),
        ] {
            assert_eq!(table.find(ip(address)), value, "{address}");
        }
    }
}

#[test]
fn a_mapped_network_is_its_ipv4_network() {
    let table = IpTable::new([(net("::ffff:10.0.0.0/104"), ()), (net("0.0.0.0/0"), ())]);
    assert_eq!(table, IpTable::new([(net("10.0.0.0/8"), ()), (net("0.0.0.0/0"), ())]));
    assert_eq!(table.find(ip("255.255.255.255")), Some(()));
}

/// Each prefix looked at in turn.
fn slowly(networks: &[(IpNet, u8)], address: IpAddr) -> Option<u8> {
    let covers = networks.iter().filter(|(network, _)| network.contains(&address));
    covers.max_by_key(|(network, _)| network.prefix_len()).map(|(_, value)| *value)
}

#[test]
fn a_thousand_tables_say_what_looking_at_each_prefix_says() {
    let mut rng = Rng::new(5);
    for _ in 0..1000 {
        let count = 1 + rng.below(40);
        let mut networks: Vec<(IpNet, u8)> = Vec::new();
        for value in 0..count {
            // Few addresses and many lengths, so that networks nest and touch.
            let bits = u32::try_from(rng.below(64)).expect("small") << 26;
            let length = u8::try_from(rng.below(33)).expect("small");
            let network = if rng.below(2) == 0 {
                IpNet::new(IpAddr::V4(Ipv4Addr::from(bits)), length)
            } else {
                IpNet::new(IpAddr::V6(Ipv6Addr::from(u128::from(bits) << 96)), length)
            };
            let network = network.expect("a length").trunc();
            networks.retain(|(other, _)| *other != network);
            networks.push((network, u8::try_from(value).expect("small")));
        }
        let table = IpTable::new(networks.clone());
        for _ in 0..200 {
            let bits = (u32::try_from(rng.below(64)).expect("small") << 26)
                .wrapping_add(u32::try_from(rng.below(3)).expect("small"))
                .wrapping_sub(1);
            for address in [IpAddr::V4(bits.into()), IpAddr::V6(Ipv6Addr::from(u128::from(bits) << 96))] {
                assert_eq!(table.find(address), slowly(&networks, address), "{address} in {networks:?}");
            }
        }
    }
}

#[test]
fn who_may_ask_and_which_network_says_so() {
    for (allowed, denied, address, may_ask, network) in [
        (&[][..], &[][..], "192.0.2.1", true, None),
        (&["10.0.0.0/8"], &[], "192.0.2.1", false, None),
        (&["10.0.0.0/8"], &[], "10.0.0.1", true, Some("10.0.0.0/8")),
        (&["10.0.0.0/8"], &[], "2001:db8::1", false, None),
        (&[], &["10.0.0.0/8"], "10.0.0.1", false, Some("10.0.0.0/8")),
        (&[], &["10.0.0.0/8"], "192.0.2.1", true, None),
        (&["10.1.0.0/16"], &["10.0.0.0/8"], "10.1.0.1", true, Some("10.1.0.0/16")),
        (&["10.1.0.0/16"], &["10.0.0.0/8"], "10.2.0.1", false, Some("10.0.0.0/8")),
        (&["10.0.0.0/8"], &["10.1.0.0/16"], "10.1.0.1", false, Some("10.1.0.0/16")),
        (&["10.0.0.0/8"], &["10.0.0.0/8"], "10.0.0.1", false, Some("10.0.0.0/8")),
        (&["10.0.0.0/9", "10.128.0.0/9"], &[], "10.200.0.1", true, Some("10.128.0.0/9")),
        (&["10.1.2.3/8"], &[], "10.0.0.1", true, Some("10.1.2.3/8")),
        (&["::ffff:10.0.0.0/104"], &[], "10.0.0.1", true, Some("::ffff:10.0.0.0/104")),
        (&["0.0.0.0/0"], &["::/0"], "::ffff:10.0.0.1", true, Some("0.0.0.0/0")),
        (&["2001:db8::/32"], &["2001:db8:1::/48"], "2001:db8:1::1", false, Some("2001:db8:1::/48")),
        (&["2001:db8::/32"], &["2001:db8:1::/48"], "2001:db8:2::1", true, Some("2001:db8::/32")),
    ] {
        let rules = IpRules::new(&nets(allowed), &nets(denied));
        assert_eq!(rules.may_ask(ip(address)), may_ask, "{allowed:?} {denied:?} {address}");
        let ruling = Ruling { may_ask, network: network.map(net) };
        assert_eq!(rules.ruling(ip(address)), ruling, "{allowed:?} {denied:?} {address}");
    }
}

#[test]
fn a_network_costs_no_more_than_the_word_on_it() {
    assert_eq!(size_of::<(u128, Option<Listed>)>(), size_of::<(u128, Option<bool>)>());
}

fn by_network(networks: &[&str], hops: Option<usize>) -> TrustedProxies {
    TrustedProxies { networks: Some(IpTable::new(nets(networks).into_iter().map(|net| (net, ())))), hops }
}

#[test]
fn the_client_is_the_first_from_the_right_whose_word_does_not_count() {
    let nobody = TrustedProxies::default();
    let ten = by_network(&["10.0.0.0/8"], None);
    let ten_once = by_network(&["10.0.0.0/8"], Some(1));
    let hops = |count| TrustedProxies { networks: None, hops: Some(count) };
    let (one, two) = (hops(1), hops(2));
    // Claims as they stand in the header; "x" is no address.
    for (trusted, connected, claims, chain) in [
        (&nobody, "10.0.0.1", "1.1.1.1", "10.0.0.1"),
        (&ten, "192.0.2.1", "1.1.1.1", "192.0.2.1"),
        (&ten, "10.0.0.1", "", "10.0.0.1"),
        (&ten, "10.0.0.1", "1.1.1.1", "1.1.1.1 10.0.0.1"),
        (&ten, "10.0.0.1", "6.6.6.6 1.1.1.1", "1.1.1.1 10.0.0.1"),
        (&ten, "10.0.0.1", "6.6.6.6 1.1.1.1 10.0.0.2", "1.1.1.1 10.0.0.2 10.0.0.1"),
        (&ten, "10.0.0.1", "10.0.0.3 10.0.0.2", "10.0.0.3 10.0.0.2 10.0.0.1"),
        (&ten, "10.0.0.1", "1.1.1.1 x", "10.0.0.1"),
        (&ten, "10.0.0.1", "1.1.1.1 x 10.0.0.2", "10.0.0.2 10.0.0.1"),
        (&ten, "::ffff:10.0.0.1", "::ffff:1.1.1.1", "1.1.1.1 10.0.0.1"),
        (&ten_once, "10.0.0.1", "1.1.1.1 10.0.0.2", "10.0.0.2 10.0.0.1"),
        (&one, "192.0.2.1", "6.6.6.6 1.1.1.1", "1.1.1.1 192.0.2.1"),
        (&one, "192.0.2.1", "", "192.0.2.1"),
        (&one, "192.0.2.1", "x", "192.0.2.1"),
        (&two, "192.0.2.1", "6.6.6.6 1.1.1.1 10.0.0.2", "1.1.1.1 10.0.0.2 192.0.2.1"),
        (&two, "192.0.2.1", "6.6.6.6", "192.0.2.1"),
        (&two, "192.0.2.1", "x 1.1.1.1", "192.0.2.1"),
    ] {
        let entries = claims.split_whitespace().rev().map(|claim| claim.parse().ok());
        let expected: Vec<IpAddr> = chain.split_whitespace().map(ip).collect();
        let followed = trusted.follow(ip(connected), entries);
        assert_eq!(followed.addresses, expected, "{trusted:?} {connected} {claims}");
        assert_eq!(followed.client(), expected[0]);
    }
}

#[test]
fn a_chain_without_end_is_followed_to_its_limit_and_no_further() {
    let all = by_network(&["0.0.0.0/0"], None);
    for (claims, addresses) in [(HOPS_MAX - 1, HOPS_MAX), (HOPS_MAX, HOPS_MAX + 1), (10_000, HOPS_MAX + 1)] {
        let entries = std::iter::repeat_n(Some(ip("10.0.0.1")), claims);
        assert_eq!(all.follow(ip("10.0.0.2"), entries).addresses.len(), addresses);
    }
}
