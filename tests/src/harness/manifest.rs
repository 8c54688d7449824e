//! Manifests as text, as a user would write them.

use std::fmt::Write as _;

/// One pool with one HTTP listener and one set of static backends, which take turns unless it says otherwise.
#[derive(Debug, Clone)]
pub struct PoolText {
    /// Name of the pool.
    pub name: String,
    /// Port of its listener.
    pub port: u16,
    /// Ports of its backends on 127.0.0.1, with weights.
    pub backends: Vec<(u16, u32)>,
    /// Host of its only rule; every host without it.
    pub hostname: Option<String>,
    /// Path prefix of its only rule; every path without it.
    pub path: Option<String>,
    /// `spec.timeouts.request`.
    pub request_timeout: String,
    /// `spec.loadBalancing`, in flow style.
    pub load_balancing: String,
    /// `spec.healthCheck`, in flow style; nothing is checked without it.
    pub health_check: Option<String>,
    /// Ports of backends on 127.0.0.1 with priority 1, of weight 1.
    pub standby: Vec<u16>,
    /// More of `spec.timeouts`, as in `idle: 1s, total: 5s`.
    pub timeouts: String,
    /// More fields of `spec`, each a line in flow style.
    pub spec: Vec<String>,
    /// More fields of its only set, each a line in flow style.
    pub set: Vec<String>,
}

impl PoolText {
    /// A pool that sends everything to the backends.
    #[must_use]
    pub fn new(name: &str, port: u16, backends: &[(u16, u32)]) -> Self {
        Self {
            name: name.to_owned(),
            port,
            backends: backends.to_vec(),
            hostname: None,
            path: None,
            request_timeout: "30s".to_owned(),
            load_balancing: "{ algorithm: RoundRobin }".to_owned(),
            health_check: None,
            standby: Vec::new(),
            timeouts: String::new(),
            spec: Vec::new(),
            set: Vec::new(),
        }
    }

    /// The YAML document.
    #[must_use]
    pub fn yaml(&self) -> String {
        let mut text = format!(
            "apiVersion: weir.dev/v1alpha1
kind: LoadBalancerPool
metadata:
  name: {}
  namespace: default
spec:
  timeouts: {{ request: {}, {} }}
  listeners:
    - name: http
      port: {}
      protocol: HTTP
  rules:
    - backendSets:
        - name: all
",
            self.name, self.request_timeout, self.timeouts, self.port
        );
        if let Some(hostname) = &self.hostname {
            let _ = writeln!(text, "      hostnames: [{hostname}]");
        }
        if let Some(path) = &self.path {
            let _ = writeln!(text, "      matches:\n        - path: {{ type: PathPrefix, value: {path} }}");
        }
        let _ = writeln!(text, "  loadBalancing: {}", self.load_balancing);
        if let Some(health_check) = &self.health_check {
            let _ = writeln!(text, "  healthCheck: {health_check}");
        }
        for field in &self.spec {
            let _ = writeln!(text, "  {field}");
        }
        text.push_str("  backendSets:\n    - name: all\n");
        for field in &self.set {
            let _ = writeln!(text, "      {field}");
        }
        text.push_str("      static:\n        backends:\n");
        for (port, weight) in &self.backends {
            let _ = writeln!(text, "          - {{ address: 127.0.0.1, port: {port}, weight: {weight} }}");
        }
        for port in &self.standby {
            let _ = writeln!(text, "          - {{ address: 127.0.0.1, port: {port}, priority: 1 }}");
        }
        if self.backends.is_empty() && self.standby.is_empty() {
            text.push_str("          []\n");
        }
        text
    }
}
