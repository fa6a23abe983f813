{{- /* What the values of the chart set. */ -}}
{{- define "authz.env" -}}
- {name: AUTHZ_ADDRESS, value: "0.0.0.0:50051"}
- {name: AUTHZ_METRICS_ADDRESS, value: "0.0.0.0:9464"}
- {name: AUTHZ_WORKERS, value: {{ .Values.workers | quote }}}
- {name: AUTHZ_DATABASE_URL, value: {{ .Values.database.url | quote }}}
- {name: AUTHZ_REPLICA_DIR, value: /var/lib/authz/replica}
{{- if .Values.database.passwordSecret }}
- {name: AUTHZ_DATABASE_PASSWORD_FILE, value: /secrets/database/password}
{{- end }}
{{- if .Values.allowUnauthenticated }}
- {name: AUTHZ_ALLOW_UNAUTHENTICATED, value: "true"}
{{- end }}
{{- if .Values.accessTokens }}
- {name: AUTHZ_ACCESS_TOKENS, value: "true"}
{{- end }}
{{- if .Values.jwt.issuer }}
- {name: AUTHZ_JWT_ISSUER, value: {{ .Values.jwt.issuer | quote }}}
- {name: AUTHZ_JWT_AUDIENCE, value: {{ required "jwt.audience is the `aud` of your JWTs" .Values.jwt.audience | quote }}}
- {name: AUTHZ_JWT_JWKS_URL, value: {{ required "jwt.jwksUrl has the keys of the issuer" .Values.jwt.jwksUrl | quote }}}
{{- end }}
{{- if .Values.tls.secret }}
- {name: AUTHZ_TLS_CERTIFICATE_FILE, value: /secrets/tls/tls.crt}
- {name: AUTHZ_TLS_KEY_FILE, value: /secrets/tls/tls.key}
{{- if .Values.tls.clientCertificates }}
- {name: AUTHZ_TLS_CLIENT_CA_FILE, value: /secrets/tls/ca.crt}
{{- end }}
{{- end }}
{{- if .Values.callers }}
- {name: AUTHZ_CALLERS_FILE, value: /etc/authz/callers.toml}
{{- end }}
{{- if .Values.limits }}
- {name: AUTHZ_LIMITS_FILE, value: /etc/authz-limits/limits.toml}
{{- end }}
{{- end -}}
