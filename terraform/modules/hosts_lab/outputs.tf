output "machines" {
  description = "Names of the machines."
  value       = sort([for server in lab_server.host : server.name])
}
