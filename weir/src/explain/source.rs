//! What a request is explained over: compiled pools, from manifests or from a controller, or a proxy's own word.

use crate::exit::Failure;
use crate::fetch::{Admin, FETCH_TIMEOUT, FetchError, Page};
use crate::findings::{self, Severity};
use crate::run::samples;
use crate::status::unusable;
use crate::validate;
use anyhow::{Context as _, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use prost::Message as _;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::PathBuf;
use weir_controller::admin::COMPILED;
use weir_controller::compile::{CompiledPool, world};
use weir_proto::limits::POOL_UPDATE_BYTES_MAX;
use weir_proto::push::{BackendSetContent, Certificate, PoolConfig, PoolUpdate};
use weir_proxy::admin::EXPLAIN;
use weir_proxy::config::offline;
use weir_proxy::explain::{Explanation, Question, explain};

/// Bytes of one answer of a proxy: a route of 20,000 backends in each of some sets.
const EXPLANATION_BYTES_MAX: usize = 64 << 20;

/// Compiled pools.
pub(super) struct Pools {
    /// Each with the class of its proxies.
    pools: Vec<(String, PoolUpdate)>,
    /// What is not as it should be, in sentences.
    remarks: Vec<String>,
}

/// What manifests compile to, as `weir run` has it.
pub(super) fn of_manifests(paths: &[PathBuf]) -> Result<Pools, Failure> {
    let loaded = validate::load(paths)?;
    let world = world(&loaded.objects, None);
    let problems = findings::all(&loaded, &world).into_iter();
    let problems = problems.filter(|finding| finding.severity == Severity::Problem);
    let remarks = problems.map(|finding| format!("not served: {finding}")).collect();
    let pools = world.all_serving().map(|(_, pool)| (pool.data_plane.class.clone(), update(pool)));
    Ok(Pools { pools: pools.collect(), remarks })
}

fn update(pool: &CompiledPool) -> PoolUpdate {
    let sets = pool.sets.iter().map(|(name, set)| BackendSetContent {
        set: name.clone(),
        digest: set.content.digest,
        backends: set.content.backends.clone(),
    });
    PoolUpdate {
        config: Some((*pool.config).clone()),
        config_digest: pool.config_digest,
        sets: sets.collect(),
        kept: Vec::new(),
    }
}

/// As [`weir_controller::admin::COMPILED`] has it.
#[derive(Deserialize)]
struct CompiledPage {
    pools: Vec<Compiled>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct Compiled {
    name: String,
    class: String,
    update: String,
}

impl Page for CompiledPage {
    const PATH: &'static str = COMPILED;
    /// The largest pool alone, in Base64, with room for the rest of the page.
    const BYTES_MAX: usize = POOL_UPDATE_BYTES_MAX / 2 * 3;
    type Row = Compiled;
    fn split(self) -> (Vec<Compiled>, Option<String>) {
        (self.pools, self.next)
    }
}

/// What a controller has compiled.
pub(super) async fn of_controller(admin: &Admin) -> Result<Pools, Failure> {
    let rows = admin.all::<CompiledPage>().await.map_err(unusable)?;
    let mut stand_in = None;
    let mut pools = Vec::new();
    for Compiled { name, class, update } in rows {
        let bytes = STANDARD.decode(update).map_err(anyhow::Error::from);
        let read = bytes.and_then(|bytes| Ok(PoolUpdate::decode(&*bytes)?));
        let read = read.with_context(|| {
            format!("{admin} tells of LoadBalancerPool {name} in another form: are weir and the controller of one version?")
        });
        let mut read = read.map_err(Failure::Usage)?;
        let certificates = read.config.as_mut().map(certificates).into_iter().flatten();
        for certificate in certificates {
            if stand_in.is_none() {
                stand_in = Some(samples::stand_in()?);
            }
            let (chain, key) = stand_in.as_ref().expect("made above");
            certificate.chain_pem = chain.clone().into_bytes();
            certificate.key_pem = key.clone().into_bytes();
        }
        pools.push((class, read));
    }
    Ok(Pools { pools, remarks: Vec::new() })
}

/// Those whose keys a controller keeps to itself. A listener is none without a pair, and nothing of it is shown.
fn certificates(config: &mut PoolConfig) -> Vec<&mut Certificate> {
    let of_listeners = config.listeners.iter_mut().filter_map(|own| own.tls.as_mut());
    let of_listeners = of_listeners.flat_map(|tls| &mut tls.certificates);
    let of_sets = config.backend_sets.iter_mut().filter_map(|set| set.tls.as_mut());
    let of_sets = of_sets.filter_map(|tls| tls.client_certificate.as_mut());
    of_listeners.chain(of_sets).filter(|certificate| certificate.key_pem.is_empty()).collect()
}

/// The explanation by proxies of this class, or of all at once, in this zone; and what is to be said beside it.
pub(super) fn explained(
    pools: Pools,
    class: Option<&str>,
    zone: &str,
    question: &Question,
) -> (Explanation, Vec<String>) {
    let Pools { mut pools, mut remarks } = pools;
    let classes: BTreeSet<String> = pools.iter().map(|(class, _)| class.clone()).collect();
    match class {
        Some(class) => {
            pools.retain(|(own, _)| own == class);
            if pools.is_empty() && !classes.is_empty() {
                let classes = classes.into_iter().collect::<Vec<_>>().join(", ");
                remarks.push(format!("no pool is for proxies of class {class:?}: there are {classes}"));
            }
        }
        None if classes.len() > 1 => {
            let classes = classes.into_iter().collect::<Vec<_>>().join(", ");
            remarks.push(format!(
                "pools of several classes are taken together, as one proxy would that serves all: {classes}; say one with --class"
            ));
        }
        None => {}
    }
    let (snapshot, refused) = offline::snapshot(pools.into_iter().map(|(_, pool)| pool).collect(), zone);
    for (pool, why) in refused {
        remarks.push(format!("a proxy would refuse LoadBalancerPool {pool}: {why}"));
    }
    (explain(&snapshot, question, None), remarks)
}

/// What a proxy says itself.
pub(super) async fn of_proxy(admin: &Admin, question: &Question) -> Result<Explanation, Failure> {
    let query = format!("?{}", question.to_query());
    let answer = tokio::time::timeout(FETCH_TIMEOUT, admin.get(EXPLAIN, &query, EXPLANATION_BYTES_MAX)).await;
    let answer = answer.unwrap_or_else(|_| Err(FetchError::Timeout(admin.clone())));
    let (status, body) = answer.map_err(unusable)?;
    match status {
        StatusCode::OK => {
            let read = serde_json::from_slice(&body);
            read.map_err(|error| unusable(FetchError::Json(admin.clone(), EXPLAIN, error)))
        }
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE | StatusCode::URI_TOO_LONG => {
            Err(Failure::Usage(anyhow!(
                "the request is larger than {admin} takes as a question: ask with fewer or smaller headers"
            )))
        }
        _ => Err(Failure::Usage(anyhow!(
            "{admin} has no {EXPLAIN} (it answers {status}): name the --admin address of a proxy of this version (port 9900 \
             unless said otherwise) or of weir run, not that of a controller"
        ))),
    }
}
