//! On a real API server, with kubectl.

mod control_plane;
mod definition;
mod source;
mod status;
mod users_path;

/// Sample backends behind a Service, as a person would deploy them.
const WEB: &str = r#"
apiVersion: v1
kind: Service
metadata: { name: web }
spec:
  selector: { app: web }
  ports: [{ name: http, port: 80, targetPort: 8080 }]
---
apiVersion: apps/v1
kind: Deployment
metadata: { name: web }
spec:
  replicas: 2
  selector: { matchLabels: { app: web } }
  template:
    metadata: { labels: { app: web } }
    spec:
      containers:
        - name: web
          image: weir
          command: [weir, demo-backend, --name, $(POD_NAME), --listen, "$(POD_IP):8080"]
          ports: [{ containerPort: 8080 }]
"#;
