terraform {
  required_version = ">= 1.9"
  backend "local" {}
  required_providers {
    lab = {
      source = "terraform.local/mobula/lab"
    }
  }
}
