//! Pages of another part of the process, at the proxy's address: what `weir run` shows of its controller. The proxy
//! knows nothing of what is on them.

use serde_json::Value;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// A page on its way.
pub type Page = Pin<Box<dyn Future<Output = Option<Value>> + Send>>;

/// JSON pages at paths that are known before.
#[derive(Clone)]
pub struct Pages {
    paths: &'static [&'static str],
    page: Arc<dyn Fn(String, Option<String>) -> Page + Send + Sync>,
}

impl Pages {
    /// `page` is given one of `paths` and the query, and answers for all that asks: it must be bounded, and quick.
    pub fn new(
        paths: &'static [&'static str],
        page: impl Fn(String, Option<String>) -> Page + Send + Sync + 'static,
    ) -> Self {
        Self { paths, page: Arc::new(page) }
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.paths.iter().copied()
    }

    /// `None` where it is none of ours.
    pub(super) async fn page(&self, path: &str, query: Option<&str>) -> Option<Value> {
        if !self.paths.contains(&path) {
            return None;
        }
        (self.page)(path.to_owned(), query.map(ToOwned::to_owned)).await
    }
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages").field("paths", &self.paths).finish_non_exhaustive()
    }
}
