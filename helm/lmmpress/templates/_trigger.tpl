{{/* The trigger's settings, its plans and its profiles. */}}

{{- define "lmmpress.triggerHost" -}}
{{- printf "%s-trigger.%s.svc.%s" (include "lmmpress.fullname" .) .Release.Namespace .Values.clusterDomain -}}
{{- end -}}

{{/* Where MLflow delivers to. */}}
{{- define "lmmpress.webhookUrl" -}}
{{- printf "http://%s:8080/webhooks/mlflow" (include "lmmpress.triggerHost" .) -}}
{{- end -}}

{{/* The settings file: those of the values, and what the chart knows. */}}
{{- define "lmmpress.triggerSettings" -}}
{{- $settings := deepCopy .Values.trigger.settings -}}
{{- $_ := set $settings "store" (printf "s3://%s" (include "lmmpress.storePlace" .)) -}}
{{- $_ := set $settings "tracking" (include "lmmpress.mlflowUrl" .) -}}
{{- $server := default dict $settings.server -}}
{{- $_ := set $server "host" "0.0.0.0" -}}
{{- $_ := set $server "port" 8080 -}}
{{- $_ := set $settings "server" $server -}}
{{- range $settings.models -}}
{{- range .plans -}}
{{- if not .engine }}{{ $_ := set . "engine" $.Values.engine }}{{ end -}}
{{- if not .cluster }}{{ $_ := set . "cluster" "cluster.yaml" }}{{ end -}}
{{- end -}}
{{- end -}}
{{- toYaml $settings -}}
{{- end -}}

{{/* The engines of its plans, as words. */}}
{{- define "lmmpress.triggerEngines" -}}
{{- $found := dict -}}
{{- range (include "lmmpress.triggerSettings" . | fromYaml).models -}}
{{- range .plans }}{{ $_ := set $found .engine "yes" }}{{ end -}}
{{- end -}}
{{- keys $found | sortAlpha | join " " -}}
{{- end -}}

{{/* A profile with the address at which the trigger's pods call Kubeflow. (list $ profile) */}}
{{- define "lmmpress.triggerProfile" -}}
{{- $ := index . 0 -}}
{{- $profile := index . 1 -}}
{{- if eq $profile.engine "kubeflow" -}}
{{- $kubeflow := $profile.kubeflow -}}
{{- /* links are for people: what only the machine of one of them reaches is none */ -}}
{{- if and $kubeflow.host (not $kubeflow.ui) (not (regexMatch "//(localhost|127\\.|\\[)" $kubeflow.host)) }}{{ $_ := set $kubeflow "ui" $kubeflow.host }}{{ end -}}
{{- $own := printf "http://ml-pipeline.%s.svc.%s:8888" $.Values.kubeflow.namespace $.Values.clusterDomain -}}
{{- $_ := set $kubeflow "host" (default $own $.Values.trigger.kubeflow.host) -}}
{{- end -}}
{{- toYaml $profile -}}
{{- end -}}

{{/* The files of its ConfigMap, by their keys. */}}
{{- define "lmmpress.triggerFiles" -}}
{{- $files := dict "trigger.yaml" (include "lmmpress.triggerSettings" .) -}}
{{- $profile := include "lmmpress.profile" . | fromYaml -}}
{{- $_ := set $files "cluster.yaml" (include "lmmpress.triggerProfile" (list . (deepCopy $profile))) -}}
{{- range $name, $said := .Values.profiles -}}
{{- $other := mergeOverwrite (deepCopy $profile) (deepCopy $said) -}}
{{- $_ := set $files (printf "clusters.%s.yaml" $name) (include "lmmpress.triggerProfile" (list $ $other)) -}}
{{- end -}}
{{- $store := printf "s3://%s" (include "lmmpress.storePlace" .) -}}
{{- range $name, $said := .Values.plans -}}
{{- $_ := set $files (printf "plans.%s.yaml" $name) (toYaml (merge (deepCopy $said) (dict "store" $store))) -}}
{{- end -}}
{{- toYaml $files -}}
{{- end -}}

{{/* Its variables. */}}
{{- define "lmmpress.triggerEnv" -}}
- name: LMMPRESS_TRIGGER_SETTINGS
  value: /etc/lmmpress/trigger.yaml
{{- include "lmmpress.storeEnv" (list . (include "lmmpress.pipelineSecret" .)) | trim | nindent 0 }}
{{- include "lmmpress.mlflowEnv" . | nindent 0 }}
{{- with include "lmmpress.caEnv" . | trim }}
{{- . | nindent 0 }}
{{- end }}
{{- if include "lmmpress.triggerAsksKubeflow" . }}
- name: KFP_TOKEN_FILE
  value: /var/run/secrets/kubeflow/pipelines/token
{{- end }}
{{- range $key, $value := .Values.trigger.extraEnv }}
- name: {{ $key }}
  value: {{ $value | quote }}
{{- end }}
{{- end -}}

{{/* Whether it shows its account's token to Kubeflow, and whether it calls Kubernetes. */}}
{{- define "lmmpress.triggerAsksKubeflow" -}}
{{- if and .Values.trigger.kubeflow.audience (has "kubeflow" (splitList " " (include "lmmpress.triggerEngines" .))) }}yes{{ end -}}
{{- end -}}

{{- define "lmmpress.triggerAsksKubernetes" -}}
{{- if has "argo" (splitList " " (include "lmmpress.triggerEngines" .)) }}yes{{ end -}}
{{- end -}}

{{- define "lmmpress.triggerMounts" -}}
- name: settings
  mountPath: /etc/lmmpress
  readOnly: true
- name: tmp
  mountPath: /tmp
{{- if include "lmmpress.triggerAsksKubeflow" . }}
- name: kubeflow
  mountPath: /var/run/secrets/kubeflow/pipelines
  readOnly: true
{{- end }}
{{- if include "lmmpress.triggerAsksKubernetes" . }}
- name: account
  mountPath: /var/run/secrets/kubernetes.io/serviceaccount
  readOnly: true
{{- end }}
{{- with include "lmmpress.caMount" . | trim }}
{{- . | nindent 0 }}
{{- end }}
{{- end -}}

{{- define "lmmpress.triggerVolumes" -}}
- name: settings
  projected:
    defaultMode: 0440
    sources:
      - configMap:
          name: {{ include "lmmpress.fullname" . }}-trigger
          items:
            {{- range $key, $_ := include "lmmpress.triggerFiles" . | fromYaml }}
            - {key: {{ $key }}, path: {{ regexReplaceAll "^(clusters|plans)\\." $key "${1}/" }}}
            {{- end }}
      {{- range $name, $from := .Values.trigger.secrets }}
      - secret:
          name: {{ $from.secret }}
          items: [{key: {{ $from.key }}, path: secrets/{{ $name }}}]
      {{- end }}
- name: tmp
  emptyDir: {}
{{- if include "lmmpress.triggerAsksKubeflow" . }}
- name: kubeflow
  projected:
    sources:
      - serviceAccountToken:
          path: token
          audience: {{ .Values.trigger.kubeflow.audience }}
{{- end }}
{{- if include "lmmpress.triggerAsksKubernetes" . }}
# as Kubernetes mounts it by itself
- name: account
  projected:
    sources:
      - serviceAccountToken:
          path: token
      - configMap:
          name: kube-root-ca.crt
          items: [{key: ca.crt, path: ca.crt}]
{{- end }}
{{- with include "lmmpress.caVolume" . | trim }}
{{- . | nindent 0 }}
{{- end }}
{{- end -}}

{{/* Refuses settings that cannot work. */}}
{{- define "lmmpress.validateTrigger" -}}
{{- $trigger := .Values.trigger -}}
{{- if not $trigger.settings.models -}}
{{- fail "trigger.settings.models: trigger.enabled is true, so name the registered models that are watched" -}}
{{- end -}}
{{- range $model, $watched := $trigger.settings.models -}}
{{- if and (gt (len $watched.plans) 1) (not $watched.default) -}}
{{- fail (printf "trigger.settings.models.%s.default: there are several plans, and Helm keeps no order: name the one that is used where nobody names one" $model) -}}
{{- end -}}
{{- range $plan, $said := $watched.plans -}}
{{- $place := printf "trigger.settings.models.%s.plans.%s" $model $plan -}}
{{- if eq (default "" $said.engine) "local" -}}
{{- fail (printf "%s.engine: local runs plans in the trigger's own pod, which has neither torch nor a GPU; leave it out, or name kubeflow or argo" $place) -}}
{{- end -}}
{{- if and $said.engine (ne $said.engine $.Values.engine) -}}
{{- fail (printf "%s.engine is %s, and this release is made for %s: the rights of its pods and its profiles are; install another release for %s" $place $said.engine $.Values.engine $said.engine) -}}
{{- end -}}
{{- $file := regexFind "^plans/.+\\.yaml$" $said.plan | trimPrefix "plans/" | trimSuffix ".yaml" -}}
{{- if or (not $file) (not (hasKey $.Values.plans $file)) -}}
{{- fail (printf "%s.plan is %s: write plans/NAME.yaml for a plan in `plans`; it has %s" $place $said.plan (default "none" (keys $.Values.plans | sortAlpha | join ", "))) -}}
{{- end -}}
{{- with $said.cluster -}}
{{- $profile := regexFind "^clusters/.+\\.yaml$" . | trimPrefix "clusters/" | trimSuffix ".yaml" -}}
{{- if and (ne . "cluster.yaml") (or (not $profile) (not (hasKey $.Values.profiles $profile))) -}}
{{- fail (printf "%s.cluster is %s: write cluster.yaml, or clusters/NAME.yaml for a profile in `profiles`; it has %s" $place . (default "none" (keys $.Values.profiles | sortAlpha | join ", "))) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range regexFindAll "\"secrets/[^\"]+\"" (toJson $trigger.settings) -1 -}}
{{- $name := trimAll "\"" . | trimPrefix "secrets/" -}}
{{- if not (hasKey $trigger.secrets $name) -}}
{{- fail (printf "trigger.settings names the file secrets/%s: say in trigger.secrets.%s which Secret and which key it is" $name $name) -}}
{{- end -}}
{{- end -}}
{{- if and $trigger.ingress.enabled (not $trigger.ingress.host) -}}
{{- fail "trigger.ingress.host: trigger.ingress.enabled is true, so name its host" -}}
{{- end -}}
{{- if and $trigger.httpRoute.enabled (not $trigger.httpRoute.parentRefs) -}}
{{- fail "trigger.httpRoute.parentRefs: trigger.httpRoute.enabled is true, so name its Gateway" -}}
{{- end -}}
{{- end -}}
