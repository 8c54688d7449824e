//! The lists of a controller that are shown.

use super::report::{Pool, Proxy};
use crate::fetch::Page;
use serde::Deserialize;
use weir_controller::admin::{POOLS, PROXIES};

/// Every pool that a replica has.
#[derive(Deserialize)]
pub(super) struct PoolPage {
    pools: Vec<Pool>,
    next: Option<String>,
}

/// Every proxy that has its stream to a replica.
#[derive(Deserialize)]
pub(super) struct ProxyPage {
    replica: String,
    proxies: Vec<Proxy>,
    next: Option<String>,
}

impl Page for PoolPage {
    const PATH: &'static str = POOLS;
    type Row = Pool;
    fn split(self) -> (Vec<Pool>, Option<String>) {
        (self.pools, self.next)
    }
}

impl Page for ProxyPage {
    const PATH: &'static str = PROXIES;
    type Row = Proxy;
    fn split(self) -> (Vec<Proxy>, Option<String>) {
        let rows = self.proxies.into_iter().map(|proxy| Proxy { replica: self.replica.clone(), ..proxy });
        (rows.collect(), self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_told_of_with_the_replica_that_it_has_its_stream_to() {
        let text = r#"{"replica":"r","proxies":[{"proxy":"p","unheard":1}],"next":null}"#;
        let (proxies, next) = serde_json::from_str::<ProxyPage>(text).expect("a page").split();
        assert_eq!((&*proxies[0].proxy, &*proxies[0].replica, next), ("p", "r", None));
        let text = r#"{"pools":[{"namespace":"ns","name":"a","status":null}],"next":"ns/a"}"#;
        let (pools, next) = serde_json::from_str::<PoolPage>(text).expect("a page").split();
        assert_eq!((&*pools[0].name, next.as_deref()), ("a", Some("ns/a")));
    }
}
